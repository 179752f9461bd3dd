import { describe, expect, it } from 'vitest';
import { hostEnvironment } from './host-environment.js';

const OWN = {
  PATH: '/usr/bin',
  DATABASE_URL: 'postgres://fewloop:secret@db/fewloop',
  LD_LIBRARY_PATH: '/opt/cuda',
  CUDA_VISIBLE_DEVICES: '1,2',
  CUDA_DEVICE_ORDER: 'PCI_BUS_ID',
  NVIDIA_TF32_OVERRIDE: '1',
};

describe('hostEnvironment', () => {
  it('has nothing of the service on a CPU', () => {
    expect(hostEnvironment('cpu', OWN)).toEqual({ MALLOC_TRIM_THRESHOLD_: '131072' });
  });

  it('has where CUDA is and what it is to see on a GPU, and fp32 that is no TF32', () => {
    expect(hostEnvironment('cuda:1', OWN)).toEqual({
      MALLOC_TRIM_THRESHOLD_: '131072',
      LD_LIBRARY_PATH: '/opt/cuda',
      CUDA_VISIBLE_DEVICES: '1,2',
      CUDA_DEVICE_ORDER: 'PCI_BUS_ID',
      NVIDIA_TF32_OVERRIDE: '0',
    });
  });

  it('names none that the service does not have: empty, CUDA_VISIBLE_DEVICES would hide every GPU', () => {
    expect(Object.keys(hostEnvironment('cuda:0', { CUDA_DEVICE_ORDER: 'PCI_BUS_ID' }))).toEqual([
      'MALLOC_TRIM_THRESHOLD_',
      'CUDA_DEVICE_ORDER',
      'NVIDIA_TF32_OVERRIDE',
    ]);
  });
});
