"use strict";
/* What each chart shows, as plotly's own traces and layout. Every builder gets a model of the data, a variant, a layer
   and the colours; it returns {traces, layout, says} (`says` is read out), or a text with the reason why the chart is empty. */

const COLOURS = {
  light: {
    text: "#1a1f24", line: "#d0d7de", fault: "#cf222e", kept: "#6e7781", rest: "#c3ccd5", paper: "#ffffff", a: "#1f6fbf", b: "#b35900",
    storages: ["#2f6db5", "#14807a", "#7b5ea7", "#8a6d00", "#3f7d3a", "#a0527a"],
  },
  dark: {
    text: "#e6edf3", line: "#3a424c", fault: "#ff7b72", kept: "#9198a1", rest: "#3f4854", paper: "#0f1419", a: "#79b8ff", b: "#f0a35c",
    storages: ["#6ea8e8", "#3fb6ae", "#b39ddb", "#d4b13f", "#7fc47a", "#dd8ab5"],
  },
};
const WORDS = {
  requested: "as requested", kept: "float on request", float: "LEFT FLOAT", missing: "MISSING", other: "OTHER PRECISION",
  unwanted: "QUANTIZED AGAINST REQUEST",
};
const FAULTS = ["float", "missing", "other", "unwanted"];

/* Names and paths are text: plotly would read tags and entities in them. */
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const short = (text, most = 34) => plain(text.length > most ? text.slice(0, 8) + "…" + text.slice(9 - most) : text);
const bytes = (count) => count.toLocaleString("en") + " bytes";
const layers = (variant) =>
  variant.layers.map(([name, title, storage, state, size, float, sqnr]) => ({name, title, storage, state, size, float, sqnr}));

function kinds(model, colours) {
  const labels = [...new Set(model.variants.flatMap((variant) =>
    layers(variant).filter((layer) => layer.state === "requested").map((layer) => layer.storage)))];
  return new Map(labels.map((label, place) => [label, colours.storages[place % colours.storages.length]]));
}

function colourOf(layer, known, colours) {
  if (FAULTS.includes(layer.state)) return colours.fault;
  return layer.state === "kept" ? colours.kept : known.get(layer.storage);
}

const kindOf = (layer) => layer.state === "requested" ? layer.storage : `${layer.storage}, ${WORDS[layer.state]}`;

function storage({model, colours}) {
  const known = kinds(model, colours), made = model.variants.filter((variant) => variant.bytes);
  const rows = [...made.map((variant) => variant.label), "float"].reverse(), sums = new Map();
  const add = (kind, colour, fault, row, size) => {
    const part = sums.get(kind) ?? {colour, fault, sizes: {}};
    part.sizes[row] = (part.sizes[row] ?? 0) + size;
    sums.set(kind, part);
  };
  for (const variant of made) {
    for (const layer of layers(variant))
      add(kindOf(layer), colourOf(layer, known, colours), FAULTS.includes(layer.state), variant.label, layer.size);
    const rest = variant.bytes - variant.layers.reduce((sum, layer) => sum + layer[4], 0);
    add("rest of the file", colours.rest, false, variant.label, Math.max(0, rest));
  }
  const weights = made[0] ? made[0].layers.reduce((sum, layer) => sum + layer[5], 0) : 0;
  add("float32 of the float model", colours.kept, false, "float", Math.min(weights, model.bytes));
  add("rest of the file", colours.rest, false, "float", Math.max(0, model.bytes - weights));
  const traces = [...sums].sort((a, b) => (a[0] === "rest of the file") - (b[0] === "rest of the file"))
    .map(([kind, {colour, fault, sizes}]) => ({
      type: "bar", orientation: "h", name: kind, y: rows.map(plain), x: rows.map((row) => sizes[row] ?? 0),
      marker: {color: colour, pattern: {shape: fault ? "/" : "", fillmode: "overlay", fgcolor: colours.paper, size: 9, solidity: 0.15}},
      hovertemplate: "%{x:,} bytes<extra>%{fullData.name}</extra>",
    }));
  const says = made.map((variant) => `${variant.label} ${bytes(variant.bytes)}`).join(", ");
  return {
    traces, says: `Bytes by storage: float ${bytes(model.bytes)}, ${says}.`,
    layout: {barmode: "stack", legend: {traceorder: "normal"}, height: 150 + 44 * rows.length, xaxis: {title: {text: "bytes"}, rangemode: "tozero"},
             yaxis: {automargin: true}},
  };
}

function map({model, variant, colours}) {
  const shown = layers(variant).filter((layer) => layer.size), known = kinds(model, colours);
  if (!shown.length) return "The file holds no layer.";
  const faults = shown.filter((layer) => FAULTS.includes(layer.state));
  return {
    says: `Layer map of ${variant.label}: ${shown.length} layers, ${faults.length} not stored as requested. ` +
      "The table of layers below has the same numbers.",
    traces: [{
      type: "treemap", ids: shown.map((layer) => layer.name), labels: shown.map((layer) => short(layer.title)),
      parents: shown.map(() => ""), values: shown.map((layer) => layer.size), customdata: shown.map((layer) => layer.name),
      text: shown.map((layer) => plain(kindOf(layer))), textinfo: "label+text+percent root", sort: true,
      hovertext: shown.map((layer) => `${plain(layer.title)}<br>${bytes(layer.size)}, float ${bytes(layer.float)}`),
      hovertemplate: "%{hovertext}<br>%{text}<extra></extra>", tiling: {pad: 0}, textfont: {color: colours.paper}, pathbar: {visible: false},
      marker: {
        colors: shown.map((layer) => colourOf(layer, known, colours)), line: {width: 1, color: colours.line},
        pattern: {shape: shown.map((layer) => FAULTS.includes(layer.state) ? "/" : ""), fgcolor: colours.paper,
                  fillmode: "overlay", size: 9, solidity: 0.15},
      },
    }],
    layout: {height: 420, margin: {l: 0, r: 0, t: 4, b: 4}},
  };
}

function losses({variant, colours}) {
  if (!variant.losses.length) return `Not known for ${variant.label}: the accuracy check did not run, or could not compare layers.`;
  const [names, titles, own, reached] = [0, 1, 2, 3].map((place) => variant.losses.map((loss) => loss[place]));
  const worst = variant.losses.reduce((a, b) => (b[2] ?? Infinity) < (a[2] ?? Infinity) ? b : a);
  const common = {
    type: "scatter", x: names.map((_, place) => place + 1), customdata: names, text: titles.map(plain),
    hovertemplate: "%{text}<br>%{y:.1f} dB<extra>%{fullData.name}</extra>",
  };
  const size = names.length > 80 ? 6 : 10;
  return {
    says: `Error added per layer of ${variant.label}: most by ${worst[1]}, output SQNR ${worst[2]?.toFixed(1)} dB.`,
    traces: [
      {...common, mode: "lines", y: reached, name: "in the network, with the errors of earlier layers", line: {color: colours.b, width: 1.5, dash: "dot"}},
      {...common, mode: "markers", y: own, name: "added by the layer itself",
       marker: {size, color: names.map((name) => name === variant.suspect ? colours.fault : colours.a),
                symbol: names.map((name) => name === variant.suspect ? "x" : "circle")}},
    ],
    layout: {height: 340, xaxis: {title: {text: "layer, in the order of execution"}, tick0: 1, dtick: Math.ceil(names.length / 12)},
             yaxis: {autorange: "reversed", title: {text: "SQNR, dB (top: most error)"}, automargin: true}},
  };
}

function bars(histogram, counts, name, colour, more = {}) {
  const step = (histogram.high - histogram.low) / counts.length;
  return {
    type: "scatter", mode: "lines", name, line: {color: colour, shape: "hvh", width: 1.5, ...more}, fill: more.fill,
    x: counts.map((_, place) => histogram.low + (place + 0.5) * step), y: counts.map((count) => count / 1000),
    hovertemplate: "%{x:.4g}: %{y:.3f} %<extra>%{fullData.name}</extra>",
  };
}

/* Without a format plotly writes 0.02 as "2". */
const shares = {type: "log", title: {text: "% of the values"}, automargin: true, tickformat: ".3~g"};

function weights({variant, layer, colours}) {
  const found = variant.weights[layer];
  if (!found) return "Not known for this layer: the weights check did not run, or the weights can't be compared.";
  return {
    says: `Weights of ${layer}: from ${found.low} to ${found.high}.`,
    traces: [bars(found, found.float, "float", colours.a), bars(found, found.stored, "as stored", colours.b, {dash: "dash"})],
    layout: {height: 300, xaxis: {title: {text: "weight"}}, yaxis: shares},
  };
}

function activations({variant, layer, colours}) {
  const ends = variant.ends[layer] ?? [], traces = [], shapes = [], texts = [];
  ends.forEach((tensor, side) => {
    const found = variant.tensors[tensor], colour = side ? colours.b : colours.a, word = side ? "output" : "input";
    if (!found) return;
    traces.push(bars(found, found.float, word, colour, {dash: side ? "dash" : "solid"}));
    for (const end of found.codes ?? [])
      shapes.push({type: "line", x0: end, x1: end, y0: 0, y1: 1, yref: "paper", line: {color: colour, dash: side ? "dash" : "dot", width: 2}});
    const codes = found.codes ? `, range of codes ${found.codes.map((end) => end.toPrecision(4)).join(" to ")}` : ", float";
    texts.push(`${word} ${found.low} to ${found.high}${codes}`);
  });
  if (!traces.length) return "Not known for this layer: the calibration check did not run, it had no data, or MNN does not give these tensors.";
  return {
    says: `Values of ${layer}: ${texts.join("; ")}.`, traces,
    layout: {height: 300, shapes, xaxis: {title: {text: "value (vertical: range of the codes)"}}, yaxis: shares},
  };
}

/* The ratios without outliers of a busy machine, which would squeeze the others together. */
function near(ratios) {
  const sorted = [...ratios].sort((a, b) => a - b), at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const reach = 3 * (at(0.75) - at(0.25)) + 0.1 * at(0.5);
  return ratios.filter((ratio) => ratio >= at(0.25) - reach && ratio <= at(0.75) + reach);
}

function latency({model, colours}) {
  const timed = model.variants.filter((variant) => variant.ratios.length && variant.ratio[0] !== null).reverse();
  if (!timed.length) return "Not timed in this run.";
  const rows = timed.map((variant) => plain(variant.label)), medians = timed.map((variant) => variant.ratio[0]);
  const traces = timed.map((variant, place) => {
    const shown = near(variant.ratios);
    return {
      type: "violin", orientation: "h", x: shown, y: shown.map(() => rows[place]), name: rows[place], side: "positive", spanmode: "hard",
      line: {color: colours.a, width: 1}, points: "all", pointpos: -0.3, jitter: 0.3, marker: {size: 3, opacity: 0.5, color: colours.a},
      showlegend: false, hoverinfo: "skip", width: 1.1,
    };
  });
  traces.push({
    type: "scatter", mode: "markers", x: medians, y: rows, name: "median and its 95 % interval", marker: {color: colours.b, size: 9, symbol: "diamond"},
    error_x: {type: "data", symmetric: false, array: timed.map((one, place) => one.ratio[2] - medians[place]),
              arrayminus: timed.map((one, place) => medians[place] - one.ratio[1]), color: colours.b, thickness: 2},
    hovertemplate: "%{x:.3f}<extra>median</extra>",
  });
  const far = timed.map((one) => one.ratios.length - near(one.ratios).length), out = far.some(Boolean)
    ? `; outliers, not drawn: ${timed.map((one, place) => `${far[place]} of ${one.label}`).join(", ")}` : "";
  return {
    says: `Latency against ${timed[0].against}: ` + timed.map((one) => `${one.label} ${one.ratio[0].toFixed(2)} times ${one.against}, 95 % interval ` +
      `${one.ratio[1].toFixed(2)} to ${one.ratio[2].toFixed(2)}`).join("; ") + out + ".",
    traces,
    layout: {height: 170 + 80 * rows.length, yaxis: {automargin: true, type: "category"},
             xaxis: {title: {text: plain(`time / ${timed[0].against === "float" ? "float model" : timed[0].against}'s time (below 1: faster)${out}`), font: {size: 12}}},
             shapes: [{type: "line", x0: 1, x1: 1, y0: 0, y1: 1, yref: "paper", line: {color: colours.text, width: 1, dash: "dot"}}]},
  };
}

function modes({model, colours}) {
  const found = model.modes.filter((one) => Object.keys(one.changes).length);
  if (!found.length) return "The scales of the modes were not compared: this recipe has no scales of activations.";
  const traces = found.map((one, place) => {
    const changes = Object.entries(one.changes).sort((a, b) => b[1] - a[1]);
    return {
      type: "scatter", mode: "markers", name: plain(one.recipe), x: changes.map((_, rank) => rank + 1), y: changes.map(([, change]) => 100 * change),
      text: changes.map(([tensor]) => plain(tensor)), marker: {color: colours.storages[place % colours.storages.length], size: 6},
      hovertemplate: "%{text}<br>%{y:.2f} %<extra>%{fullData.name}</extra>",
    };
  });
  const worst = Object.entries(found[0].changes).reduce((a, b) => b[1] > a[1] ? b : a);
  const most = worst[1] <= 9 ? `at most ${(100 * worst[1]).toFixed(1)} %` : "more than 10x";  // as in modes.py
  return {
    says: `Scales of train against eval: ${most}, in ${worst[0]}.`, traces,
    layout: {height: 280, xaxis: {title: {text: "tensors, most changed first"}},
             yaxis: {title: {text: "change of scale, %"}, rangemode: "tozero", automargin: true}},
  };
}

function history({model, colours, figure}) {
  const found = model.history.filter((one) => one.figures[figure.dataset.figure]);
  if (!found.length) return null;
  const marks = ["circle", "diamond", "square", "x", "triangle-up"], shapes = [], annotations = [];
  const traces = found.map((one, place) => ({
    type: "scatter", mode: "lines+markers", name: plain(one.variant), x: one.times, y: one.figures[figure.dataset.figure],
    text: one.commits.map(plain), connectgaps: false, cliponaxis: false, line: {color: colours.storages[place % colours.storages.length]},
    marker: {symbol: marks[place % marks.length], size: 7}, hovertemplate: "%{x}<br>%{text}<br>%{y}<extra>%{fullData.name}</extra>",
  }));
  for (const one of found)
    for (const [name, time, commit] of one.steps.filter((step) => step[0] === figure.dataset.figure)) {
      shapes.push({type: "line", x0: time, x1: time, y0: 0, y1: 1, yref: "paper", line: {color: colours.fault, dash: "dash", width: 1}});
      annotations.push({x: time, y: 1, yref: "paper", text: plain(commit || name), showarrow: false, xanchor: "left", font: {color: colours.text}});
    }
  const values = found.flatMap((one) => one.figures[figure.dataset.figure]).filter((value) => value !== null);
  const low = Math.min(...values), high = Math.max(...values), around = Math.max(0.1 * (high - low), 0.05 * Math.abs(high)) || 1;
  const most = figure.dataset.figure === "coverage" ? 1 : Infinity;
  const last = found.map((one) => `${one.variant} ${one.figures[figure.dataset.figure].at(-1) ?? "not measured"}`).join(", ");
  return {
    says: `${found[0].times.length} runs; last: ${last}.`, traces,
    layout: {height: 260, shapes, annotations, xaxis: {type: "date"}, yaxis: {range: [low - around, Math.min(most, high + around)], automargin: true, exponentformat: "none", separatethousands: true}},
  };
}

const CHARTS = {storage, map, losses, weights, activations, latency, modes, history};
