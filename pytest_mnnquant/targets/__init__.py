"""Machines that run a `.mnn` on given inputs: an emulated ARM processor, a device behind ssh, a user's command."""
