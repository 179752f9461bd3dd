/** `FEWLOOP_DEVICE` by its parts. Types and pure functions only. */

/** `cpu`, or each of `cuda:0,1` as `cuda:0`, `cuda:1`. */
export function devicesOf(device: string): string[] {
  const [kind = '', numbers = '0'] = device.split(':');
  return kind === 'cuda' ? numbers.split(',').map((number) => `cuda:${Number(number)}`) : [device];
}

export function isGpu(device: string): boolean {
  return device !== 'cpu';
}
