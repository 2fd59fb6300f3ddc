// Sampling in the page, and two sliders. `LIVE`, from pictures.js, holds what can be shown at once;
// the network comes with the file `LIVE.bundle.file`, when it is asked for.
(() => {
const here = document.currentScript.src, sz = 32, n_pixels = sz*sz;
const still = () => matchMedia('(prefers-reduced-motion: reduce)').matches;
const bytes = s => Uint8Array.from(atob(s), c => c.charCodeAt(0));
const floats = (all, i) => Float32Array.from(all.subarray(i*n_pixels, (i+1)*n_pixels),
                                             o => o/127.5 - 1);
const photo = floats(bytes(LIVE.photo), 0), guided = bytes(LIVE.guided);

// ---- the process: docs/live/__init__.py draws the same noise ------------------------------------
// Standard normal numbers from a seed: mulberry32, then Box and Muller
function noise(seed, n=n_pixels) {
  let a = seed >>> 0;
  const u = () => {
    a = a + 0x6D2B79F5 | 0;
    let z = Math.imul(a ^ a >>> 15, a | 1);
    z ^= z + Math.imul(z ^ z >>> 7, z | 61);
    return ((z ^ z >>> 14) >>> 0)/2**32;
  };
  const normal = () => Math.sqrt(-2*Math.log(1 - u()))*Math.cos(2*Math.PI*u());
  return Float32Array.from({length: n}, normal);
}
const schedule = t => [Math.cos(Math.PI*t/2), Math.sin(Math.PI*t/2)];       // alpha, sigma

// DDIM, from the network's v; each step yields where it came to and what was predicted
async function* ddim(net, x, n_steps) {
  for (let i = 0; i < n_steps; i++) {
    const [t, s] = [i, i+1].map(o => .99*(1 - o/n_steps));
    const [alpha, sigma] = schedule(t), [alpha_s, sigma_s] = schedule(s);
    const v = await net(x, t);
    const x_0 = x.map((x, j) => alpha*x - sigma*v[j]);
    x = x.map((x, j) => alpha_s*x_0[j] + sigma_s*(sigma*x + alpha*v[j]));
    yield {i, x_t: x, x_0};
  }
}

// Classifier-free guidance: with the class and without, in one batch
const guide = (ask, c, guidance) => async (x_t, t) => {
  const plain = guidance == 1 || c == LIVE.none;
  const pred = await ask({x_t, t, c: plain ? [c] : [c, LIVE.none]});
  const without = pred.subarray(n_pixels);
  return plain ? pred : without.map((o, j) => o + guidance*(pred[j] - o));
};

// ---- the network, in a worker that is started once ----------------------------------------------
let network, ready, worker;
const drop = () => { worker?.terminate(); network = ready = worker = null; };
const fetched = () => new Promise((done, fail) => {      // no fetch: a page from a file may not
  const script = document.createElement('script'), no = Error('the network could not be loaded');
  Object.assign(script, {src: new URL(LIVE.bundle.file, here), onerror: () => fail(no),
                         onload: () => LIVE.parts ? done() : fail(no)});   // cut short, say
  document.head.append(script);
});
async function start() {
  await fetched();
  const code = new Blob([LIVE.parts.worker], {type: 'text/javascript'});
  worker = new Worker(URL.createObjectURL(code));
  const once = question => new Promise((done, fail) => {
    worker.onmessage = ({data}) => 'error' in data ? fail(Error(data.error)) : done(data.answer);
    worker.onerror = e => fail(Error(e.message || 'no worker can be started'));
    worker.postMessage(question);
  });
  let before = Promise.resolve();                        // one after the other, also after a stop
  const ask = question => before = before.catch(() => {}).then(() => once(question));
  await ask(LIVE.parts);
  delete LIVE.parts;
  return ask;
}

// ---- panels -------------------------------------------------------------------------------------
function paint(canvas, x, across=1) {
  const n = x.length/n_pixels, g = canvas.getContext('2d');
  [canvas.width, canvas.height] = [across*sz, n/across*sz];
  for (let i = 0; i < n; i++) {
    const image = g.createImageData(sz, sz);
    for (let j = 0; j < 4*n_pixels; j++)
      image.data[j] = j%4 == 3 ? 255 : (x[i*n_pixels + (j >> 2)] + 1)*127.5;
    g.putImageData(image, i%across*sz, Math.floor(i/across)*sz);
  }
}
const typeset = text => text.replace(/\bx_(.)/g, '<i>x</i><sub>$1</sub>');
const picture = (name, text) => `<figure><canvas class="${name}" role="img"
  aria-label="${text}"></canvas><figcaption>${typeset(text)}</figcaption></figure>`;
const field = (name, text, type, attributes) => `<label>${text}
  <input name="${name}" type="${type}" required ${attributes}></label>`;
const option = (o, i) => `<option value="${i}">${o}</option>`;

const panels = {
  // A photograph at a time that the slider sets
  noise(panel, find) {
    panel.innerHTML = `<p><b>Try it:</b> a photograph of Fashion-MNIST, noise, and their weighted
      sum at any time, in the cosine schedule.</p>
      ${field('t', 'Time', 'range', 'value="0.5" min="0" max="1" step="0.01"')}
      <div class="shown">${picture('x_0', 'photograph, x_0')}${picture('eps', 'noise, ε')}
      ${picture('x_t', 'x_t = α x_0 + σ ε')}</div><output></output>`;
    const eps = noise(LIVE.seed), range = find('input');
    range.oninput = () => {
      const t = +range.value, [alpha, sigma] = schedule(t), logsnr = 2*Math.log(alpha/sigma);
      paint(find('.x_t'), photo.map((x, j) => alpha*x + sigma*eps[j]));
      const last = t == 0 ? '∞' : t == 1 ? '-∞' : logsnr.toFixed(2);
      const all = {t: t.toFixed(2), α: alpha.toFixed(3), σ: sigma.toFixed(3)};
      find('output').textContent = Object.entries({...all, 'log-SNR': last})
        .map(o => o.join(' = ')).join(', ');
    };
    paint(find('.x_0'), photo);
    paint(find('.eps'), eps);
    range.oninput();
  },

  // Samples of all classes from one noise, at the guidance scale that the slider sets
  guidance(panel, find) {
    const {classes, scales, steps} = LIVE, last = scales.length - 1;
    panel.innerHTML = `<p><b>Try it:</b> all ten classes of the network that comes with the package,
      from the same noise in ${steps} steps of <code>ddim</code>.</p>
      ${field('scale', 'Guidance scale', 'range', `value="3" min="0" max="${last}"`)}
      ${picture('classes', classes.join(', '))}<output></output>`;
    const range = find('input');
    range.oninput = () => {
      const scale = scales[range.value], n = classes.length;
      const all = classes.map((_, i) => [...floats(guided, range.value*n + i)]).flat();
      paint(find('canvas'), all, n/2);
      const says = {0: ': the class is ignored', 1: ': no guidance'};
      const text = `guidance scale ${scale}${says[scale] || ''}`;
      find('output').textContent = range.ariaValueText = text;
    };
    range.oninput();
  },

  // A sample, computed here
  sample(panel, find) {
    if (!LIVE.bundle) return panel.remove();
    const {classes, scales, seed, steps, none} = LIVE, first = classes.length - 1, MB = 1e6;
    panel.innerHTML = `<p><b>Sample in this page:</b> the network that comes with the package, by
      <code>ddim</code>, on your processor, in this browser. The first click loads the network and
      its runtime, ${(LIVE.bundle.size/MB).toFixed(1)} MB; nothing is sent.</p>
      <form><label>Class
      <select name="c">${[...classes, 'no class'].map(option).join('')}</select></label>
      ${field('guidance', 'Guidance scale', 'number', 'value="2" min="0" max="9" step="any"')}
      ${field('n_steps', 'Steps', 'number', `value="${steps}" min="1" max="100"`)}
      ${field('seed', 'Seed', 'number', `value="${seed}" min="0" max="4294967295"`)}
      <button>Sample</button></form>
      <div class="shown">${picture('x_t', 'noisy, x_t')}${picture('x_0', 'predicted, x_0')}</div>
      <progress value="0" aria-label="Steps"></progress>
      <output role="status">Sampled before: an ${classes[first].toLowerCase()} from this noise.</output>`;
    const form = find('form'), button = find('button'), bar = find('progress');
    const say = text => { find('output').textContent = text; };
    const show = o => ['x_t', 'x_0'].forEach(k => paint(find(`.${k}`), o[k]));
    let run;                                             // what is running, if anything is
    const end = () => { run = null; button.textContent = 'Sample'; };

    async function sample({c, guidance, n_steps, seed}) {
      const mine = run = {};
      let done;
      button.textContent = 'Stop';
      Object.assign(bar, {max: n_steps, value: 0});
      try {
        if (!ready) say('Loading the network ...');
        const ask = await (network ??= start());
        ready = true;
        if (run != mine) return;
        say('Sampling ...');
        const t = performance.now();
        for await (done of ddim(guide(ask, c, guidance), noise(seed), n_steps)) {
          if (run != mine) return;
          bar.value = done.i + 1;
          if (!still()) show(done);
        }
        show(done);
        const took = ((performance.now() - t)/1000).toFixed(1);
        say(`${n_steps} step${n_steps == 1 ? '' : 's'}, ${took} s`);
        panel.dispatchEvent(new CustomEvent('sampled', {detail: done.x_0}));
      } catch (e) {
        if (run && run != mine) return;                  // a later one will meet it as well
        drop();
        if (run) say(`This did not work: ${e.message}`);
      }
      if (run == mine) end();
    }
    const stop = () => { if (run) { say('Stopped'); end(); } };
    form.onsubmit = e => {
      e.preventDefault();
      const asked = [...new FormData(form)].map(([k, v]) => [k, +v]);
      sample(Object.fromEntries(asked));
    };
    // also while a field is empty; the second click of a double click does nothing
    button.onclick = e => {
      if (run || e.detail > 1) e.preventDefault();
      if (e.detail < 2) stop();
    };
    addEventListener('keydown', e => e.key == 'Escape' && stop());
    form.elements.c.value = first;
    show({x_t: noise(seed), x_0: floats(guided, scales.indexOf(2)*classes.length + first)});
  },
};
document.querySelectorAll('.live').forEach(o =>
  panels[o.dataset.live](o, query => o.querySelector(query)));
LIVE.noise = noise;                                      // for the tests
})();
