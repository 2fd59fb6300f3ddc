"""Models on the Hugging Face hub: `save_pretrained`, `push_to_hub`, `from_pretrained`, `load_unet`
against a local folder, and against a server that answers as the hub does"""
import base64, hashlib, inspect, json, os, re, subprocess, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import pytest, torch
from unet_attention.evaluation import Score, Scores
from unet_attention.saving import load_unet, model_card, read_config, save_unet
from unet_attention.unet import ConditionalTAUnet, ContextTAUnet, TAUnet, UNet

TOKEN = 'hf_stub'
small = dict(nfs=(8,16), attention_heads=(0,2), n_blocks=(1,1))
CONFIG, WEIGHTS, CARD = 'config.json', 'model.safetensors', 'README.md'

# ---- a hub ---------------------------------------------------------------------------------------
class Hub(ThreadingHTTPServer):
    "Repositories in memory: `commits[name]` lists the commits, each a dict of files"
    daemon_threads = True
    def __init__(self):
        super().__init__(('127.0.0.1', 0), Answer)
        self.url = f'http://127.0.0.1:{self.server_port}'
        self.commits,self.private,self.objects,self.asked,self.down = {},set(),{},[],False
        self.messages,self.tags = [],{}

    def add(self, name, files):
        "Commit files; returns the name of the commit"
        self.commits.setdefault(name, []).append(files)
        return self.sha(name, len(self.commits[name]) - 1)

    def sha(self, name, i): return hashlib.sha1(f'{name} {i}'.encode()).hexdigest()

    def at(self, name, revision):
        "The commit of a revision, and its files; `None` if there is none"
        n = len(self.commits[name])
        ids = {self.sha(name, i): i for i in range(n)}
        i = n - 1 if revision == 'main' and n else ids.get(self.tags.get(revision, revision))
        return None if i is None else (self.sha(name, i), self.commits[name][i])

class Answer(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass

    def say(self, body=b'', code=200, **headers):
        if not isinstance(body, bytes): body = json.dumps(body).encode()
        self.send_response(code)
        for k,v in {'Content-Length': len(body), **headers}.items(): self.send_header(k, str(v))
        self.end_headers()
        if self.command != 'HEAD': self.wfile.write(body)

    def body(self):
        "What was sent, perhaps in chunks"
        if self.headers.get('Transfer-Encoding') != 'chunked':
            return self.rfile.read(int(self.headers.get('Content-Length') or 0))
        parts = []
        while n := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(n))
            self.rfile.readline()
        self.rfile.readline()
        return b''.join(parts)

    def fail(self, code, kind=''):
        self.say({'error': kind}, code, **{'X-Error-Code': kind, 'X-Error-Message': kind})

    def handle_any(self):
        hub,path = self.server,self.path.partition('?')[0]
        if path != '/api/agent-harnesses': hub.asked.append(f'{self.command} {path}')
        body = self.body()
        known = self.headers.get('Authorization') == f'Bearer {TOKEN}'
        if hub.down: return self.fail(503)
        if self.command in ('POST', 'PUT'):
            if path == '/api/validate-yaml': return self.say({'errors': [], 'warnings': []})
            known = known or self.command == 'PUT'                  # to an address that is signed
            return self.write(path, body) if known else self.fail(401)
        api = re.fullmatch(r'/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)', path)
        file = re.fullmatch(r'/([^/]+/[^/]+)/resolve/([^/]+)/(.+)', path)
        if not api and not file: return self.fail(404, 'RepoNotFound')
        name = (api or file)[1]
        if name not in hub.commits or (name in hub.private and not known):
            return self.fail(404, 'RepoNotFound')
        found = hub.at(name, (api or [0]*4)[3] if api else file[2])
        if not found: return self.fail(404, 'RevisionNotFound')
        self.tell(name, api, file, *found)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def tell(self, name, api, file, sha, files):
        "What is in a commit"
        if api and api[2] == 'revision':
            siblings = [dict(rfilename=o) for o in files]
            return self.say(dict(id=name, modelId=name, sha=sha, siblings=siblings, tags=[],
                                 private=name in self.server.private, downloads=0, likes=0))
        if api:
            return self.say([dict(type='file', path=k, size=len(v), oid=hashlib.sha1(v).hexdigest())
                             for k,v in files.items()])
        if file[3] not in files: return self.fail(404, 'EntryNotFound')
        body = files[file[3]]
        self.say(body, **{'ETag': f'"{hashlib.sha1(body).hexdigest()}"', 'X-Repo-Commit': sha})

    def write(self, path, body):
        "What an upload asks for"
        hub = self.server
        if self.command == 'PUT':
            hub.objects[path.split('/')[-1]] = body
            return self.say()
        if path == '/api/repos/create':
            d = json.loads(body)
            name = f"{d.get('organization') or 'me'}/{d['name']}"
            made = dict(url=f'{hub.url}/{name}', name=name, id=name)
            if name in hub.commits: return self.say(dict(made, error='exists'), 409)
            hub.commits[name] = []
            if d.get('private') or d.get('visibility') == 'private': hub.private.add(name)
            return self.say(made)
        if path.endswith('/info/lfs/objects/batch'):
            href = f'{hub.url}/objects/'
            return self.say(dict(transfer='basic', objects=[
                dict(oid=o['oid'], size=o['size'], actions=dict(upload=dict(href=href + o['oid'])))
                for o in json.loads(body)['objects']]))
        it = re.fullmatch(r'/api/models/([^/]+/[^/]+)/(preupload|commit)/main', path)
        name,verb = it.groups()
        if verb == 'preupload':
            def mode(p): return 'lfs' if hub.lfs and p.endswith('.safetensors') else 'regular'
            return self.say(dict(files=[
                dict(path=o['path'], uploadMode=mode(o['path']), shouldIgnore=False)
                for o in json.loads(body)['files']]))
        files = dict(hub.commits[name][-1]) if hub.commits[name] else {}
        for o in map(json.loads, body.splitlines()):
            v = o['value']
            if o['key'] == 'header': hub.messages.append(v['summary'])
            if o['key'] == 'file': files[v['path']] = base64.b64decode(v['content'])
            if o['key'] == 'lfsFile': files[v['path']] = hub.objects[v['oid']]
        sha = hub.add(name, files)
        self.say(dict(commitUrl=f'{hub.url}/{name}/commit/{sha}', commitOid=sha,
                      commitMessage='', pullRequestUrl=None))

@pytest.fixture
def hub():
    "A hub, which huggingface_hub takes for its own; nothing else can be reached"
    server = Hub()
    server.lfs = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()

@pytest.fixture
def online(hub, tmp_path, monkeypatch):
    "This process is logged in there, with an empty cache"
    from huggingface_hub import constants, file_download
    found = hub.url + '/{repo_id}/resolve/{revision}/{filename}'
    for k,v in dict(ENDPOINT=hub.url, HUGGINGFACE_CO_URL_TEMPLATE=found, HF_HUB_OFFLINE=False,
                    HF_HUB_DISABLE_XET=True, HF_HUB_CACHE=str(tmp_path/'hf')).items():
        monkeypatch.setattr(constants, k, v, raising=False)       # old versions know no Xet
    monkeypatch.setattr(file_download, 'HUGGINGFACE_CO_URL_TEMPLATE', found, raising=False)
    monkeypatch.setenv('HF_TOKEN', TOKEN)
    monkeypatch.chdir(tmp_path)
    return hub

def error(kind, f, *args, **kwargs):
    "The text of the error that a call ends with, which is of that class and has one line"
    with pytest.raises(kind) as e: f(*args, **kwargs)
    assert type(e.value) is kind and '\n' not in str(e.value)
    return str(e.value)

# ---- a folder ------------------------------------------------------------------------------------
@pytest.fixture
def model():
    torch.manual_seed(0)
    m = ConditionalTAUnet(4, **small)
    for p in m.parameters(): torch.nn.init.normal_(p, std=.1)
    return m.eval()

extra = dict(sz=8, classes=['cat', 'dog', 'hat', 'tie'], data='pets')

def alike(a, b):
    "Are two networks one and the same?"
    one,two = a.state_dict(),b.state_dict()
    return type(a) is type(b) and a.config == b.config and one.keys() == two.keys() and all(
        torch.equal(v, two[k]) for k,v in one.items())

def test_folder(model, tmp_path):
    "`save_pretrained` writes what `save_unet` writes, and a card; `from_pretrained` reads either"
    assert model.save_pretrained(tmp_path/'a', extra=extra) is None
    save_unet(model, tmp_path/'b', **extra)
    assert files_of(tmp_path/'a') == files_of(tmp_path/'b')
    assert sorted(o.name for o in (tmp_path/'a').iterdir()) == [CARD, CONFIG, WEIGHTS]
    for f in ('a', 'b'):
        back = ConditionalTAUnet.from_pretrained(tmp_path/f, local_files_only=True)
        assert alike(back, model) and not back.training
    assert alike(TAUnet.from_pretrained(str(tmp_path/'a')), model)

@pytest.mark.parametrize('make', [
    lambda: UNet((8, 16), num_heads=2), lambda: TAUnet(**small),
    lambda: ContextTAUnet(9, **small, context_dim=8)])
def test_each_network(make, tmp_path):
    a = make()
    a.save_pretrained(tmp_path)
    assert alike(type(a).from_pretrained(tmp_path), a.eval())
    meta = card(tmp_path/CARD)[0]
    captioned = isinstance(a, ContextTAUnet)
    assert meta['pipeline_tag'] == ('text-to-image' if captioned else
                                    'unconditional-image-generation')

def test_signatures():
    "What the mixin of huggingface_hub takes is taken here, but for what it gave up or is ours"
    from huggingface_hub import ModelHubMixin
    for k in ('save_pretrained', 'push_to_hub', 'from_pretrained'):
        theirs = inspect.signature(getattr(ModelHubMixin, k)).parameters
        mine = inspect.signature(getattr(TAUnet, k)).parameters
        names = {o for o,p in theirs.items() if p.kind != p.VAR_KEYWORD}
        names -= {'config', 'resume_download', 'proxies'}          # the first is `model.config`
        assert names <= set(mine) or k == 'push_to_hub'            # which hands the rest to theirs
        assert next(o for o in theirs if o != 'self') == next(o for o in mine if o != 'self')

def test_help():
    "What `help` shows explains the arguments, though the methods stand apart from their classes"
    for cls in (UNet, TAUnet):
        assert 'revision: Branch, tag or commit' in inspect.getdoc(cls.from_pretrained)
        assert 'repo_id: ' in inspect.getdoc(cls.push_to_hub)

# ---- the card ------------------------------------------------------------------------------------
def card(file):
    "Metadata and text of a model card"
    import yaml
    _,meta,text = Path(file).read_text(encoding='utf-8').split('---\n', 2)
    return yaml.safe_load(meta),text

def scored(n=240, k=1):
    s = Scores(fid=Score(12.5, .25 if k > 1 else None, 3.5), memorised=Score(0., None, .0042))
    s.n,s.k = n,k
    return s

def test_card(model, tmp_path):
    "It says what was given, and that the rest is missing"
    save_unet(model, tmp_path, **extra)
    meta,text = card(model_card(tmp_path))
    assert meta['library_name'] == 'unet_attention' and 'license' not in meta
    n = sum(v.numel() for v in model.state_dict().values())
    assert f'`ConditionalTAUnet`, {n:,} weights' in text and 'cat, dog, hat, tie' in text
    assert 'Not scored.' in text and 'None were kept.' in text and 'Not said.' in text
    (tmp_path/'history.csv').write_text('epoch,train_loss\n0,.9\nepoch,train_loss,eps_loss\n'
                                        '0,.5,.4\n1,.25,.125\n')
    kw = dict(scores=scored(), training='Two epochs.', samples=torch.rand(4, 3, 8, 8)*2 - 1)
    meta,text = card(model_card(tmp_path, **kw, license='mit', datasets=['me/pets'], tags=['pets']))
    assert (meta['license'], meta['datasets'], meta['tags'][-1]) == ('mit', ['me/pets'], 'pets')
    assert 'Of 240 samples, by' in text and 'not those of Inception' in text
    assert '| fid | 12.5000 |  | 3.5000 |' in text
    assert 'Two epochs.' in text and '| 1 | .25 | .125 |' in text and '| 0 |' not in text
    assert '![Samples](samples.png)' in text and not re.search('Not s|None were', text)
    from PIL import Image
    with Image.open(tmp_path/'samples.png') as im: assert im.width > 100
    text = card(model_card(tmp_path, scores=scored(50, 3)))[1]
    assert 'Of 3 sets of 50 samples, by' in text and '| fid | 12.5000 | 0.2500 | 3.5000 |' in text
    assert '![Samples](samples.png)' in text                  # the sheet that is there

def test_a_card_that_is_there_stays(model, tmp_path):
    model.save_pretrained(tmp_path)
    (tmp_path/CARD).write_text('mine')
    model.save_pretrained(tmp_path)
    assert (tmp_path/CARD).read_text() == 'mine'
    model.save_pretrained(tmp_path, model_card_kwargs=dict(license='mit'))
    assert card(tmp_path/CARD)[0]['license'] == 'mit'

@pytest.mark.parametrize('given, row', [
    (dict(classes=[0, 1, 2, 3]), '| classes | 0, 1, 2, 3 |'),
    (dict(classes='four pets'), '| classes | four pets |'),
    (dict(classes=None), '| classes | 4, unnamed |'),
    (dict(note='x|y\nz <!-- <b>'), r'| note | x\|y z &lt;!-- &lt;b> |'),
    ({'a|b\nc': 1}, r'| a\|b c | 1 |')])
def test_odd_facts_on_a_card(model, tmp_path, given, row):
    "Each stays one row of the table, and hides nothing below it"
    text = card(model_card(save_unet(model, tmp_path, **given)))[1]
    assert row in text.splitlines() and 'Not scored.' in text

def test_a_card_stays_short(model, tmp_path):
    save_unet(model, tmp_path, seen=list(range(100_000)))
    assert len(model_card(tmp_path).read_text()) < 4000

def test_odd_arguments_of_a_card(model, tmp_path):
    "One tag, no tags, a table that ends in empty lines or is not there, a config of defaults"
    save_unet(model, tmp_path, sz=None)
    kept = card(model_card(tmp_path, tags=None))[0]['tags']
    assert card(model_card(tmp_path, tags='pets'))[0]['tags'] == kept + ['pets']
    (tmp_path/'history.csv').write_text('epoch,loss\n0,.5\n\n')
    assert '| 0 | .5 |' in card(model_card(tmp_path))[1]
    assert 'typo.csv' in error(FileNotFoundError, model_card, tmp_path, history='typo.csv')
    d = json.loads((tmp_path/CONFIG).read_text())
    del d['config']['target'], d['config']['schedule']
    (tmp_path/CONFIG).write_text(json.dumps(d))
    text = card(model_card(tmp_path))[1]
    assert '`v`, schedule `cosine`' in text and '(3, SIDE, SIDE)' in text

def test_the_name_on_a_card(model, tmp_path, monkeypatch):
    "A folder's, whatever it is called and however it is given"
    (tmp_path/"cat's").mkdir()
    monkeypatch.chdir(tmp_path/"cat's")
    model.save_pretrained('.')
    text = Path(CARD).read_text()
    assert "# cat's\n" in text and """load_unet("cat's")""" in text

def test_the_code_on_the_card_runs(model, tmp_path, monkeypatch):
    import matplotlib
    matplotlib.use('Agg')
    monkeypatch.chdir(tmp_path)
    for m in (model, TAUnet(**small)):
        m.save_pretrained('me', extra=dict(sz=8), model_card_kwargs=dict(license='mit'))
        code, = re.findall(r'```python\n(.*?)```', Path('me', CARD).read_text(), re.S)
        here = {}
        exec(code.replace('n_steps=20', 'n_steps=2'), here)
        assert here['x'].shape == (8, 3, 8, 8)

# ---- the hub -------------------------------------------------------------------------------------
def files_of(folder): return {f: (Path(folder)/f).read_bytes() for f in (CONFIG, WEIGHTS)}

def pushed(model, **kwargs):
    kw = dict(extra=extra, commit_message='First', model_card_kwargs=dict(license='mit'))
    return model.push_to_hub('me/pets', **kw | kwargs)

@pytest.mark.parametrize('lfs', [True, False])
def test_up_and_down(model, online, lfs):
    "What `push_to_hub` uploads, `load_unet`, `read_config` and `from_pretrained` download"
    online.lfs = lfs
    url = pushed(model, private=True)
    assert url == f"{online.url}/me/pets/commit/{online.sha('me/pets', 0)}"
    files, = online.commits['me/pets']
    assert {f: files[f] for f in (CONFIG, WEIGHTS)} == files_of(save_unet(model, 'model', **extra))
    assert online.messages == ['First'] and online.private == {'me/pets'}
    assert b"load_unet('me/pets')" in files[CARD] and b'license: mit' in files[CARD]
    assert bool(online.objects) == lfs
    online.asked.clear()
    assert alike(load_unet('me/pets'), model) and read_config('me/pets')['extra'] == extra
    assert alike(TAUnet.from_pretrained('me/pets', cache_dir='elsewhere'), model)
    assert {o.split('/')[-1] for o in online.asked if '/resolve/' in o} == {CONFIG, WEIGHTS}
    assert any(Path('elsewhere').iterdir())

def test_push_again(model, online):
    "A second push is a second commit; `save_pretrained(push_to_hub=True)` does the same"
    pushed(model)
    model.out[2].bias.data.fill_(1.)
    online.asked.clear()
    url = model.save_pretrained('pets', extra=extra, push_to_hub=True, commit_message='Second',
                                repo_id='me/pets')
    assert url.endswith(online.sha('me/pets', 1)) and online.messages == ['First', 'Second']
    assert not online.private
    assert alike(load_unet('me/pets'), model) and alike(load_unet('pets'), model)

def test_the_name_that_the_hub_gives(model, online):
    "A name without its user is one on the hub: the card loads the model by the whole of it"
    assert '/me/pets/' in model.push_to_hub('pets', extra=extra)
    text = online.commits['me/pets'][0][CARD].decode()
    assert re.findall('load_unet.*', text) == ["load_unet('me/pets')"]
    model.save_pretrained('dogs', push_to_hub=True)
    text = online.commits['me/dogs'][0][CARD].decode()
    assert re.findall('load_unet.*', text) == ["load_unet('me/dogs')"]
    assert "load_unet('dogs')" in Path('dogs', CARD).read_text()

def test_uploads_the_card_that_is_there(model, online):
    "Of a folder that was described before, the card and the samples go up, and nothing else"
    model.save_pretrained('pets', model_card_kwargs=dict(samples=torch.rand(4, 3, 8, 8)))
    Path('pets', CARD).write_text("Mine: load_unet('pets')")
    Path('pets', 'checkpoint.pt').write_text('x')
    model.save_pretrained('pets', push_to_hub=True, repo_id='me/pets')
    files, = online.commits['me/pets']
    assert sorted(files) == [CARD, CONFIG, WEIGHTS, 'samples.png']
    assert files[CARD] == b"Mine: load_unet('me/pets')"

def test_endpoint(model, hub, tmp_path):
    "As users do it: another process, `HF_ENDPOINT` and `HF_TOKEN`"
    save_unet(model, tmp_path/'model', **extra)
    env = {k: v for k,v in os.environ.items() if not k.upper().startswith(('HF_', 'HTTP'))}
    env |= {'HF_ENDPOINT': hub.url, 'HF_HOME': str(tmp_path/'hf'), 'HF_HUB_DISABLE_XET': '1'}
    code = """from unet_attention.saving import *
load_unet('model').push_to_hub('me/pets')
save_unet(load_unet('me/pets'), 'back')
"""
    r = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], text=True, cwd=tmp_path,
                       env=env | {'HF_TOKEN': TOKEN}, capture_output=True)
    assert r.returncode == 0, r.stderr[-2000:]
    assert alike(load_unet(tmp_path/'back'), model)

@pytest.fixture
def there(model, online):
    "A model on the hub, beside files that nobody should fetch, and a newer one"
    files = files_of(save_unet(model, 'model', **extra))
    first = online.add('you/pets', {**files, 'pytorch_model.bin': b'x', 'a.py': b'x'})
    online.tags['v1'] = online.first = first
    online.add('you/pets', files_of(save_unet(TAUnet(**small), 'other')))
    yield online
    assert not [o for o in online.asked if o.endswith(('.bin', '.py'))]

def test_revisions(there):
    "A branch, tag or commit, said in either way; the newest if none is said"
    assert type(TAUnet.from_pretrained('you/pets')) is TAUnet
    for r in ('v1', there.first):
        assert type(TAUnet.from_pretrained('you/pets', revision=r)) is ConditionalTAUnet
        assert type(load_unet(f'you/pets@{r}')) is ConditionalTAUnet
        assert read_config(f'you/pets@{r}')['extra'] == extra
    said = error(ValueError, ConditionalTAUnet.from_pretrained, 'you/pets')
    assert said == "you/pets must be a ConditionalTAUnet, got 'TAUnet'"

def test_two_revisions(there):
    "Said twice, it is refused; an empty one is none"
    f = TAUnet.from_pretrained
    said = error(ValueError, f, 'you/pets@v1', revision='main')
    assert said == "revision must be left out beside 'you/pets@v1', got 'main'"
    assert not there.asked
    assert type(f('you/pets', revision='')) is TAUnet

def test_no_place_for_downloads(there, tmp_path):
    "The disk is to blame, not the hub"
    (tmp_path/'file').write_text('x')
    f = TAUnet.from_pretrained
    assert 'file' in error(NotADirectoryError, f, 'you/pets', cache_dir=tmp_path/'file')

def test_from_the_cache(there):
    "What was downloaded once is there when the hub is not"
    load_unet('you/pets')
    asked = len(there.asked)
    TAUnet.from_pretrained('you/pets', local_files_only=True)
    assert len(there.asked) == asked
    there.down = True
    load_unet('you/pets')

def test_command(there, capsys):
    "`unet_attention_sample user/name` samples, by the names and the side in the config"
    from unet_attention.cli import sample_command
    sample_command(['you/pets@v1', '--n', '1', '--steps', '2', '--classes', 'cat,tie'])
    assert 'Wrote generated.png' in capsys.readouterr().out and Path('generated.png').is_file()
    with pytest.raises(SystemExit): sample_command(['you/nothing'])
    said = capsys.readouterr().err
    assert said.startswith('unet_attention_sample: folder must be a folder here or a model on the')
    assert "'you/nothing'" in said and said.count('\n') == 1

def test_command_and_odd_classes(there, capsys):
    "Classes that are numbers are chosen by number; what is no list is one line of error"
    from unet_attention.cli import sample_command
    files = there.commits['you/pets'][0]
    for name,classes in dict(digits=[7, 1, 4, 9], bad=5).items():
        d = json.loads(files[CONFIG]) | dict(extra=dict(sz=8, classes=classes))
        there.add(f'you/{name}', {**files, CONFIG: json.dumps(d).encode()})
    sample_command(['you/digits', '--n', '1', '--steps', '1', '--classes', '7,4'])
    assert Path('generated.png').is_file()
    with pytest.raises(SystemExit): sample_command(['you/bad', '--n', '1', '--steps', '1'])
    assert 'classes must be a list in you/bad, got 5' in capsys.readouterr().err

def test_a_folder_comes_first(there):
    save_unet(UNet((8,)), 'you/pets')
    assert type(load_unet('you/pets')) is UNet and type(load_unet(Path('you/pets'))) is UNet
    assert 'config.json is missing' in error(FileNotFoundError, load_unet, Path('you/dogs'))
    assert not there.asked

def test_hostile(there):
    "A download is checked as any folder is: here its weights belong to another config"
    one,two = there.commits['you/pets']
    there.add('you/mixed', {CONFIG: one[CONFIG], WEIGHTS: two[WEIGHTS]})
    assert 'model.safetensors' in error(ValueError, load_unet, 'you/mixed')
    there.add('you/bad', {CONFIG: one[CONFIG], WEIGHTS: b'\0'*64})
    said = error(ValueError, load_unet, 'you/bad')
    assert 'must be a whole safetensors file' in said and 'you--bad' in said
    there.add('you/none', {'pytorch_model.bin': b'x', CONFIG: one[CONFIG]})
    assert error(FileNotFoundError, load_unet, 'you/none') == (
        'you/none on the hub must hold config.json and model.safetensors of save_unet, '
        "got 'no model.safetensors'")

want = 'folder must be a folder here or a model on the hub, got '

def test_no_such_model(there):
    "Names what was asked for, and what would help; the hub is asked once"
    said = error(FileNotFoundError, load_unet, 'you/cats')
    assert said == (f"{want}'you/cats': the hub has none, or it is private and needs a token "
                    '(hf auth login)')
    assert len(there.asked) == 1
    assert f"{want}'you/pets@v9': the hub has" in error(FileNotFoundError, load_unet, 'you/pets@v9')
    there.private.add('you/pets')
    f = TAUnet.from_pretrained
    assert 'needs a token' in error(FileNotFoundError, f, 'you/pets', token=False)
    assert type(f('you/pets')) is TAUnet
    assert f"{want}'a/..': " in error(ValueError, load_unet, 'a/..')

def test_no_answer(there, monkeypatch):
    "The error names the cause, once, and what would help"
    from huggingface_hub import constants
    f,cats = TAUnet.from_pretrained,f"{want}'you/cats': it is not in the cache, and the hub "
    there.down = True
    said = error(ConnectionError, f, 'you/cats')
    assert said.startswith(cats + 'did not answer (') and '503' in said
    assert said.endswith('). Go online, or name a folder')
    there.asked.clear()
    said = error(ConnectionError, f, 'you/cats', local_files_only=True)
    assert said == cats + 'was not asked. Go online, or name a folder'
    assert not there.asked
    monkeypatch.setattr(constants, 'ENDPOINT', 'http://127.0.0.1:9')
    said = error(ConnectionError, f, 'you/cats')
    assert 'refused' in said or 'Max retries' in said
    assert said.count("got 'you/cats'") == 1

def test_not_uploaded(model, online, monkeypatch):
    "Without a token: one error. What cannot be saved makes nothing on the hub"
    said = error(TypeError, pushed, model, privat=True)
    assert 'privat' in said
    monkeypatch.delenv('HF_TOKEN')
    said = error(ConnectionError, pushed, model, token=False)
    assert said.startswith("'me/pets' was not uploaded: ") and '401' in said
    assert said.endswith('hf auth login, or token=')
    online.asked.clear()
    model.out[2].bias.data.fill_(float('nan'))
    assert 'out.2.bias in model must be finite' in error(ValueError, pushed, model)
    assert not online.asked and not online.commits
