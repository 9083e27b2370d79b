"""Stacks: a multilingual encoder, a projection and an LLM as one network, and the folder it lives in."""
