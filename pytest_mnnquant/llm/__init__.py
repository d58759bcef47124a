"""Reads the folder of a language model's export, and the checkpoint it was made from, without torch and MNN."""
