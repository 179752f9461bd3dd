import { describe, expect, it } from 'vitest';
import { Admission } from './admission.js';
import type { Priority } from './types.js';

const MOST = 1000;

/** The queue with so much of each class in it. */
function holding({ interactive = 0, bulk = 0 }): Admission {
  const admission = new Admission(MOST);
  admission.wait(interactive, 'interactive');
  admission.wait(bulk, 'bulk');
  return admission;
}

function takes(admission: Admission, tokens: number, priority: Priority): boolean {
  try {
    admission.check(tokens, { priority });
    return true;
  } catch {
    return false;
  }
}

describe('room for bulk work', () => {
  it('is what requests leave of half of the queue', () => {
    expect(takes(holding({ interactive: 300 }), 200, 'bulk')).toBe(true);
    expect(takes(holding({ interactive: 300 }), 201, 'bulk')).toBe(false);
    expect(takes(holding({ interactive: 300, bulk: 150 }), 100, 'background')).toBe(false);
  });

  it('is there for one that is larger than that, beside requests', () => {
    expect(takes(holding({ interactive: 300 }), 600, 'bulk')).toBe(true);
    const admission = holding({ interactive: 300 });
    admission.wait(600, 'bulk');
    admission.start(600, 'bulk');
    expect(takes(admission, 600, 'bulk')).toBe(false);
    admission.end(600, 'bulk');
    expect(takes(admission, 600, 'bulk')).toBe(true);
  });

  it('is not there while requests fill more than half of the queue', () => {
    expect(takes(holding({ interactive: 501 }), 600, 'bulk')).toBe(false);
    expect(takes(holding({ interactive: 501 }), 1, 'bulk')).toBe(false);
  });
});

it('requests have half of the queue, however large the bulk work is that was taken', () => {
  const admission = holding({ bulk: 5000 });
  expect(takes(admission, 600, 'interactive')).toBe(true);
  admission.wait(300, 'interactive');
  expect(takes(admission, 200, 'interactive')).toBe(true);
  expect(takes(admission, 201, 'interactive')).toBe(false);
});
