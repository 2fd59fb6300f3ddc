"Sphinx's settings; `tools/docs` runs it"
from importlib.util import find_spec
from pathlib import Path
from site_ext import site

project,author,version = site.lib,site.cfg.author,site.cfg.version
copyright = f'{author}, {site.cfg.license}'
extensions = 'autodoc githubpages intersphinx mathjax viewcode'.split()
extensions = [f'sphinx.ext.{o}' for o in extensions] + [
    'myst_nb', 'sphinx_copybutton', 'sphinx_design', 'sphinxext.opengraph', 'site_ext', 'live']
nb_execution_mode,nb_merge_streams,nb_output_stderr = 'off',True,'remove'
# nothing from elsewhere
nb_ipywidgets_js,nb_mime_priority_overrides = {},[('html', 'text/plain', 200)]
myst_enable_extensions = 'dollarmath amsmath colon_fence attrs_block alert html_image'.split()
myst_heading_anchors = 4
autodoc_typehints_format,autodoc_member_order = 'short','bysource'
add_module_names = toc_object_entries = viewcode_follow_imported_members = False
python_maximum_signature_line_length = 78
python_display_short_literal_types = viewcode_line_numbers = True
autodoc_default_options = {'members': True, 'no-value': True, 'show-inheritance': True}
intersphinx_mapping = dict(torch=('https://docs.pytorch.org/docs/stable/', 'torch.inv'),
                           fastai=('https://docs.fast.ai/', 'fastai.inv'),
                           fastcore=('https://fastcore.fast.ai/', 'fastcore.inv'))
# formulas: MathJax from the package `sphinx-mathjax-offline`, without what no page needs of it
mathjax = Path(find_spec('sphinx-mathjax-offline').origin).parent/'static'
unused = '[!tio]* tex-[!c]* tex-chtml-* input/*.js input/mml output/*.js output/svg'.split()
exclude_patterns = [f'mathjax/{o}' for o in unused]
mathjax_path = 'mathjax/tex-chtml.js'
mathjax3_config = dict(options=dict(enableMenu=False), chtml=dict(mtextInheritFont=True))
html_theme,html_title,html_baseurl = 'furo',f'{site.lib} {version}',site.home
html_static_path,html_css_files,html_js_files = ['_static', str(mathjax)],['site.css'],['site.js']
html_favicon,html_search_scorer = '_static/icon.svg',str(site.root/'docs/_static/scorer.js')
html_show_sphinx = html_copy_source = html_show_sourcelink = False
html_use_index = html_domain_indices = False
blue,light = '#0b5c8a','#7cc7f2'
github = {'name': 'GitHub', 'url': site.repo, 'html': 'GitHub', 'class': ''}
html_theme_options = dict(
    light_css_variables={'color-brand-primary': blue, 'color-brand-content': blue},
    dark_css_variables={'color-brand-primary': light, 'color-brand-content': light},
    footer_icons=[github]*bool(site.repo), top_of_page_buttons=[])
ogp_site_url,ogp_image,ogp_site_name = site.home,'images/clothes.png',site.lib
ogp_image_alt = 'Ten rows of clothes that a network of this book generated'
ogp_custom_meta_tags = ['<meta name="twitter:card" content="summary_large_image" />']
ogp_enable_meta_description = True
