"""The web page, ``sam-uniref demo``: pictures, videos and methods side by side, in a browser.

What can be tested without a page stands apart from the layout: `uploads` (what may come in), `marks` (what was clicked
and painted), `visits` (what is remembered of whom), `answers`, `tracks` and `samples`. `page` puts them together and is
the one that needs Gradio, with the tabs it consists of.
"""
