"""Articles, with their tags, and who likes them."""
