"Sphinx's settings; `tools/docs` runs it, and has made `site`"
from site_ext import site

docs = site.root/'docs'
project,author,version = site.lib,site.cfg['author'],site.cfg['version']
copyright = f'{author}, {site.cfg["license"]}'
extensions = [f'sphinx.ext.{o}' for o in ('autodoc', 'intersphinx', 'mathjax', 'viewcode')]
extensions += ['myst_nb', 'sphinx_copybutton', 'sphinx_design', 'sphinxext.opengraph', 'site_ext']
nb_execution_mode,nb_merge_streams,nb_output_stderr = 'off',True,'remove'
# nothing from elsewhere
nb_ipywidgets_js,nb_mime_priority_overrides = {},[('html', 'text/plain', 200)]
myst_enable_extensions = 'dollarmath amsmath colon_fence attrs_block alert html_image'.split()
myst_heading_anchors = 4
autodoc_typehints_format,autodoc_member_order = 'short','bysource'
add_module_names = toc_object_entries = viewcode_follow_imported_members = False
python_maximum_signature_line_length = 78
python_display_short_literal_types = viewcode_line_numbers = True
intersphinx_mapping = site.inventories
# formulas: MathJax as it is in the package `sphinx-mathjax-offline`, copied by tools/docs
mathjax_path = 'mathjax/tex-chtml.js'
mathjax3_config = dict(options=dict(enableMenu=False), chtml=dict(mtextInheritFont=True))
html_theme,html_title,html_baseurl = 'furo',f'{site.lib} {version}',site.home
html_static_path,html_css_files,html_js_files = [str(docs/'_static')],['site.css'],['site.js']
html_favicon,html_search_scorer = str(docs/'_static/icon.svg'),str(docs/'_static/scorer.js')
html_show_sphinx = html_copy_source = html_show_sourcelink = False
html_use_index = html_domain_indices = False
blue,light = '#0b5c8a','#7cc7f2'
github = {'name': 'GitHub', 'url': site.repo, 'html': 'GitHub', 'class': ''}
html_theme_options = dict(
    light_css_variables={'color-brand-primary': blue, 'color-brand-content': blue,
                         'color-brand-visited': '#5b3a8a'},
    dark_css_variables={'color-brand-primary': light, 'color-brand-content': light,
                        'color-brand-visited': '#c3a6f5'},
    footer_icons=[github]*bool(site.repo), top_of_page_buttons=[])
ogp_site_url,ogp_image,ogp_site_name = site.home,'images/card.png',site.lib
ogp_image_alt = 'Pictures of clothes and of coloured shapes that networks of this book generated'
ogp_custom_meta_tags = ['<meta name="twitter:card" content="summary_large_image" />']
ogp_enable_meta_description = True
