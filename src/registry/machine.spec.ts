import { describe, expect, it } from 'vitest';
import { gpusOf, machine, processorOf } from './machine.js';

/** Two machines that a cloud calls by one name. */
const epyc = (model: number, more: string) => `processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 25
model		: ${model}
model name	: AMD EPYC
stepping	: 1
cpu MHz		: 2445.432
cache size	: 512 KB
core id		: 0
flags		: fpu vme sse sse2 ssse3 sse4_1 fma f16c avx avx2 ${more} sme smep

processor	: 1
vendor_id	: AuthenticAMD
cpu family	: 25
model		: ${model}
model name	: AMD EPYC
stepping	: 1
cpu MHz		: 3100.001
cache size	: 512 KB
core id		: 1
flags		: fpu vme sse sse2 ssse3 sse4_1 fma f16c avx avx2 ${more} sme smep
`;
const milan = epyc(1, 'vaes');
const genoa = epyc(17, 'avx512f avx512_vnni');

const bigLittle = `processor	: 0
BogoMIPS	: 50.00
Features	: fp asimd aes fphp asimdhp asimddp sve i8mm bf16
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd46
CPU revision	: 2

processor	: 1
BogoMIPS	: 50.00
Features	: fp asimd aes fphp asimdhp asimddp
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x1
CPU part	: 0xd4d
CPU revision	: 0
`;

describe('a processor', () => {
  it('is told from another of its name by numbers and vector flags', () => {
    expect(processorOf(milan)).toBe(
      'vendor_id AuthenticAMD model name AMD EPYC cpu family 25 model 1 stepping 1 cache size 512 KB ' +
        'avx avx2 f16c fma sse4_1 ssse3',
    );
    expect(processorOf(genoa)).toContain('avx avx2 avx512_vnni avx512f f16c');
    expect(processorOf(epyc(1, 'avx512f'))).not.toBe(processorOf(milan));
  });

  it('is the same at another clock, with other flags of the system, in another order', () => {
    expect(processorOf(milan.replace('2445', '1500').replaceAll('sme smep', 'ibpb'))).toBe(processorOf(milan));
    expect(processorOf(milan.replaceAll('avx avx2', 'avx2 avx'))).toBe(processorOf(milan));
  });

  it('has each kind of its cores once', () => {
    const [big, little, ...others] = processorOf(bigLittle).split('; ');
    expect(big).toBe(
      'CPU implementer 0x41 CPU architecture 8 CPU variant 0x0 CPU part 0xd46 CPU revision 2 ' +
        'asimd asimddp asimdhp bf16 fphp i8mm sve',
    );
    expect(little).toContain('0xd4d CPU revision 0 asimd asimddp asimdhp fphp');
    expect(others).toEqual([]);
  });

  it('is unknown where the system says nothing', () => {
    expect(processorOf('')).toBe('');
    expect(processorOf('processor : 0\nhart : 1\n')).toBe('');
  });
});

describe('GPUs', () => {
  it('are named by the tool, without what tells one from another of its kind', () => {
    expect(gpusOf('GPU 0: NVIDIA H200 (UUID: GPU-1a)\nGPU 1: Tesla T4 (UUID: GPU-2b)\n')).toBe('NVIDIA H200, Tesla T4');
    expect(gpusOf('GPU 0: NVIDIA A100 (UUID: GPU-1a)\n  MIG 1g.10gb     Device  0: (UUID: MIG-3c)\n')).toBe(
      'NVIDIA A100, MIG 1g.10gb',
    );
  });

  it("are named by the driver's files", () => {
    const file = (model: string) =>
      `Model: 		 ${model}\nIRQ:   		 130\nGPU UUID: 	 GPU-1a\nVideo BIOS: 	 96.00\nDevice Minor: 	 0\n`;
    expect(gpusOf(`${file('NVIDIA L4')}\n${file('NVIDIA H100 PCIe')}`)).toBe('NVIDIA L4, NVIDIA H100 PCIe');
    expect(gpusOf('no devices')).toBe('');
  });
});

describe('machine', () => {
  const sources = (cpuinfo: string, gpus = 'GPU 0: NVIDIA L4 (UUID: GPU-1a)') => ({
    cpuinfo: async () => cpuinfo,
    gpus: async () => gpus,
  });
  const none = { cpuinfo: () => Promise.reject(new Error('none')), gpus: () => Promise.reject(new Error('none')) };

  it('differs where a measurement would', async () => {
    const keys = [
      await machine('cpu', sources(milan)),
      await machine('cpu', sources(genoa)),
      await machine('cuda:0', sources(milan)),
      await machine('cuda:0', sources(milan, 'GPU 0: NVIDIA H200 (UUID: GPU-1a)')),
      await machine('cuda:0', none),
    ];
    expect(new Set(keys).size).toBe(keys.length);
    expect(keys[0]).toMatch(/ssse3 \| \d+ cores \| onnxruntime \d+\.\d+\.\d+ \| cpu$/u);
    expect(keys[2]).toMatch(/ \| cuda:0 \| NVIDIA L4$/u);
  });

  it('asks for GPUs where they compute alone, and does without what is not there', async () => {
    const gpus = () => Promise.reject(new Error('not to be asked'));
    expect(await machine('cpu', { ...sources(milan), gpus })).toBe(await machine('cpu', sources(milan)));
    expect(await machine('cuda:1', none)).toMatch(/ \| cuda:1 \| $/u);
  });
});
