/** What a model host is given of the service's environment: nothing, but for what CUDA's libraries read. */
import { isGpu } from '../common/devices.js';

/** Where CUDA's libraries are, and which GPUs the numbers of FEWLOOP_DEVICE mean: the trainer, which has all, reads them too. */
const OF_CUDA = ['LD_LIBRARY_PATH', 'CUDA_VISIBLE_DEVICES', 'CUDA_DEVICE_ORDER'];

/** Of a host of `device`, by the service's own. No secrets: a host needs none. */
export function hostEnvironment(device: string, own: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  // Without the threshold, glibc keeps freed memory.
  const always = { MALLOC_TRIM_THRESHOLD_: '131072' };
  if (!isGpu(device)) return always;
  const handedOn = OF_CUDA.flatMap((name) => (own[name] === undefined ? [] : [[name, own[name]] as const]));
  // ONNX Runtime multiplies fp32 in TF32, which has ten bits of a number, and its binding for Node cannot say no: golden
  // values in fp32 are held to 1e-4. NVIDIA's libraries take this over what a program asks for.
  return { ...always, ...Object.fromEntries(handedOn), NVIDIA_TF32_OVERRIDE: '0' };
}
