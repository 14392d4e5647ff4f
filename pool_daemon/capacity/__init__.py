"""What a pool holds, what drains it and when it runs empty: rules only.

Pure functions: documents and instants are passed in; no database, clock or setting is read.
"""
