"""From tables to what a person looks at: plots, widgets, notebooks (one a figure or a study), pages
(what prose includes), progress (how far all is trained), build (the book)."""
