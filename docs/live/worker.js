// The network in a worker of its own: a first message brings the parts, each further one a question
const unpack = async s => {
  const {body} = await fetch(`data:application/octet-stream;base64,${s}`);
  const whole = new Response(body.pipeThrough(new DecompressionStream('gzip')));
  return new Uint8Array(await whole.arrayBuffer());
};
let ort, session;

const load = async parts => {
  const [code, wasm, model] = await Promise.all([parts.ort, parts.wasm, parts.model].map(unpack));
  ort = await import(URL.createObjectURL(new Blob([code], {type: 'text/javascript'})));
  Object.assign(ort.env.wasm, {numThreads: 1, wasmBinary: wasm});  // static hosts allow one thread
  session = await ort.InferenceSession.create(model, {executionProviders: ['wasm']});
};

// The prediction for one image under each of the labels `c`, in one batch
const ask = async ({x_t, t, c}) => {
  const b = c.length, side = Math.sqrt(x_t.length), x = new Float32Array(b*x_t.length);
  c.forEach((_, i) => x.set(x_t, i*x_t.length));
  const {pred} = await session.run({
    x_t: new ort.Tensor('float32', x, [b, 1, side, side]),
    t: new ort.Tensor('float32', new Float32Array(b).fill(t), [b]),
    c: new ort.Tensor('int64', BigInt64Array.from(c, BigInt), [b])});
  return pred.data;
};

onmessage = async ({data}) => {
  try { postMessage({answer: await (session ? ask : load)(data)}); }
  catch (e) { postMessage({error: String(e)}); }
};
