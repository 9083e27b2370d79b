"""Publishing a model on the Hub: what is sent (publication), what must not be (leaks), whether it loads (opening)."""
