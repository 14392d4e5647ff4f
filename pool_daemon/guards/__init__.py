"""What may forbid that a pool which is due is settled."""
