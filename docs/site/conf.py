"""Settings of Sphinx: everything a page needs comes with it, so that a site on a disk asks for no network."""

project = html_title = "stepscope"
extensions = ["myst_parser"]
myst_heading_anchors = 4  # named as GitHub names them, for the documents' links
highlight_language = "none"  # indented formulas are no code

html_theme = "furo"
html_static_path = ["style.css"]
html_extra_path = ["extra"]  # the report that docs/report.md is about
html_css_files = ["style.css"]
html_copy_source = html_show_sourcelink = html_show_copyright = False
pygments_style, pygments_dark_style = "a11y-high-contrast-light", "a11y-high-contrast-dark"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b4f79", "color-brand-content": "#0b5c94"},
    "dark_css_variables": {"color-brand-primary": "#7cbcea", "color-brand-content": "#7cbcea"},
}
