"""What a pool holds, what drains it and when it runs empty: rules only.

Nothing here reads a database, a clock or a setting: documents and instants are given, answers are returned.
"""
