"""One module a page of docs/reference; its `page` yields the lines."""
