"""The site: an explorer of all variants, and the documentation for each of them."""
