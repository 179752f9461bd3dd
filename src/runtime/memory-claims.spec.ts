import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { MemoryClaims } from './memory-claims.js';

let folder: string;
let open: MemoryClaims[];
const process = (asked?: () => void): MemoryClaims => {
  const claims = new MemoryClaims(folder, asked);
  open.push(claims);
  return claims;
};

beforeEach(() => {
  vi.useFakeTimers();
  folder = mkdtempSync(join(tmpdir(), 'fewloop-claims-'));
  open = [];
});
afterEach(() => {
  for (const claims of open) claims.close();
  rmSync(folder, { recursive: true, force: true });
  vi.useRealTimers();
});

describe('claims on the memory of a machine', () => {
  it('are seen by all others, as they were told last', () => {
    const [api, stream, trainer] = [process(), process(), process()];
    api.hold(300);
    stream.hold(50);
    stream.hold(70);
    expect([api.others, stream.others, trainer.others]).toEqual([70, 300, 370]);
    api.close();
    expect(trainer.others).toBe(70);
    expect(readdirSync(folder)).toHaveLength(1);
  });

  it('hold while their process tells of itself, and lapse with it', () => {
    const [live, other] = [process(), process()];
    live.hold(300);
    // As one that was killed leaves it.
    writeFileSync(join(folder, 'dead.json'), JSON.stringify({ at: Date.now(), bytes: 1000, wants: true }));
    writeFileSync(join(folder, 'torn.json'), '{"at": 1');
    expect(other.others).toBe(1300);
    vi.advanceTimersByTime(16_000);
    expect(other.others).toBe(300);
    expect(readdirSync(folder)).not.toContain('dead.json');
  });

  it('of who holds more than a fair share are asked back while another wants room, and no others', () => {
    const asked: string[] = [];
    const [rich, fair, poor] = [
      process(() => asked.push('rich')),
      process(() => asked.push('fair')),
      process(() => asked.push('poor')),
    ];
    rich.hold(700);
    fair.hold(300);
    vi.advanceTimersByTime(4_000);
    expect(asked).toEqual([]);
    poor.want();
    vi.advanceTimersByTime(2_000);
    expect(asked).toEqual(['rich']);
    rich.hold(300);
    fair.hold(600);
    vi.advanceTimersByTime(2_000);
    expect(asked).toEqual(['rich', 'fair']);
    // Whoever does not ask again wants it no more.
    vi.advanceTimersByTime(20_000);
    const before = asked.length;
    vi.advanceTimersByTime(10_000);
    expect(asked).toHaveLength(before);
  });

  it('without a folder to tell them in are one process’s own', () => {
    const [one, other] = [process(), process()];
    rmSync(folder, { recursive: true });
    one.hold(5);
    vi.advanceTimersByTime(2_000);
    expect([one.others, other.others]).toEqual([0, 0]);
  });
});
