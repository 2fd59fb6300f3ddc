"Sphinx's settings; `tools/docs` runs it"
import os, sys
from pathlib import Path
root = Path(os.environ['SITE_ROOT'])
sys.path.insert(0, str(root/'docs'))
import site_ext
from pages import Site

site_ext.site = site = Site(root)
site.outside = site_ext.Outside()
project,author,version = site.lib,site.cfg['author'],site.cfg['version']
copyright = f'{author}, Apache-2.0'
extensions = ['myst_nb', 'site_ext', 'sphinx_copybutton', 'sphinx.ext.mathjax']
exclude_patterns = ['**.ipynb_checkpoints', '_static']
nb_execution_mode,nb_merge_streams,nb_output_stderr = 'off',True,'remove'
nb_ipywidgets_js = {}                                     # nothing from elsewhere
nb_mime_priority_overrides = [('html', 'text/plain', 200)]
myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence', 'fieldlist', 'alert', 'deflist', 'html_image', 'attrs_inline']
myst_heading_anchors = 4
add_module_names = False
toc_object_entries = False
python_maximum_signature_line_length = 78
python_display_short_literal_types = True
# formulas: MathJax as it is in the package `sphinx-mathjax-offline`, copied by tools/docs
mathjax_path = 'mathjax/tex-chtml.js'
mathjax3_config = dict(options=dict(enableMenu=False), chtml=dict(mtextInheritFont=True), tex=dict(macros={}))
html_theme,html_title,html_baseurl = 'furo',site.lib,site.home
html_short_title = site.lib
html_static_path = [str(root/'docs/_static')]
html_css_files,html_js_files = ['site.css'],['site.js']
html_show_sphinx = html_copy_source = html_show_sourcelink = False
html_favicon = str(root/'docs/_static/icon.svg')
html_theme_options = dict(
    light_css_variables={'color-brand-primary': '#0b5c8a', 'color-brand-content': '#0b5c8a', 'color-brand-visited': '#5b3a8a'},
    dark_css_variables={'color-brand-primary': '#7cc7f2', 'color-brand-content': '#7cc7f2', 'color-brand-visited': '#c3a6f5'},
    footer_icons=[dict(name='GitHub', url=site.repo, html='GitHub', **{'class': ''})], top_of_page_buttons=[])
html_use_index = html_domain_indices = False
copybutton_exclude = '.linenos, .gp, .go'
suppress_warnings = ['mystnb.unknown_mime_type']
