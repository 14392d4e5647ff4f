"""The rules of capacity: the contents of a pool, its drain, and the second at which it runs empty.

Pure functions: documents and instants are passed in; no database, clock or setting is read.
"""
