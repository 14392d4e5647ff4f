"""The only rooms that know MongoDB: what is read and written, how, and what its errors mean."""
