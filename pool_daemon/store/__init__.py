"""The only package that knows MongoDB: what is read and written, how, and what its errors mean."""
