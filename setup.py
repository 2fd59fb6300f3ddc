"Build the package from `settings.ini`; `pyproject.toml` has what PEP 517, nbdev 3 and ruff read."
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages

here = Path(__file__).parent
ini = ConfigParser(delimiters=['='], interpolation=None)
if not ini.read(here/'settings.ini', encoding='utf-8'): raise FileNotFoundError('settings.ini')
cfg = ini['DEFAULT']
lib, repo = cfg['lib_name'], f"https://github.com/{cfg['user']}/{cfg['lib_name']}"
statuses = ['1 - Planning', '2 - Pre-Alpha', '3 - Alpha', '4 - Beta', '5 - Production/Stable',
            '6 - Mature', '7 - Inactive']

def lines(key): return [o.strip() for o in cfg.get(key, '').splitlines() if o.strip()]
extras = {k: lines(f'{k}_requirements') for k in ('dev', 'docs', 'bench', 'onnx', 'multi')}

setup(
    name=lib, version=cfg['version'], description=cfg['description'], url=repo,
    long_description=(here/'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    keywords=cfg['keywords'], author=cfg['author'], author_email=cfg['author_email'],
    license_expression=cfg['license'], license_files=['LICENSE'],
    classifiers=[f"Development Status :: {statuses[int(cfg['status'])-1]}",
                 'Programming Language :: Python :: 3', 'Intended Audience :: Education',
                 'Topic :: Scientific/Engineering :: Artificial Intelligence'],
    python_requires=f">={cfg['min_python']}", packages=find_packages(include=[lib, f'{lib}.*']),
    package_data={lib: ['py.typed', 'weights/*.safetensors', 'pretrained/*/*']},
    install_requires=lines('requirements'),
    extras_require={**extras, 'dev': sum(extras.values(), [])},
    entry_points={'console_scripts': lines('console_scripts'),
                  'nbdev': [f'{lib} = {lib}._modidx:d']},
)
