"""The purifier on a server: a SavedModel that answers by itself."""
