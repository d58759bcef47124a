"""Places that run a `.mnn` on given inputs: this machine, an emulated ARM processor, a command of one's own."""
