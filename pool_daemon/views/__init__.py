"""What there is to see of one pool or owner: read at a bounded cost, and told in the texts of commands and page."""
