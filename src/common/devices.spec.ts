import { expect, it } from 'vitest';
import { devicesOf, isGpu } from './devices.js';

it.each([
  ['cpu', ['cpu']],
  ['cuda', ['cuda:0']],
  ['cuda:2', ['cuda:2']],
  ['cuda:0,3', ['cuda:0', 'cuda:3']],
])('%s is %o', (device, devices) => {
  expect(devicesOf(device)).toEqual(devices);
  expect(isGpu(device)).toBe(device !== 'cpu');
});
