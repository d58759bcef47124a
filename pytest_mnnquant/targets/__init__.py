"""Machines that run a `.mnn` on given inputs: an emulated ARM processor, a device behind ssh, or a user's command."""
