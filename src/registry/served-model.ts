/** A verified bundle, opened: its graphs in model hosts, its tokenizer loaded. Whoever opens it releases it. */
import type { Member, ServedModel } from '../inference/types.js';
import type { HostPool } from '../runtime/host-pool.js';
import type { Precision } from '../task/types.js';
import { UNMEASURED_BATCH_TOKENS, type BatchBudgets } from './batch-budget.js';
import { invalid, type Bundle } from './bundle.js';
import type { BundleManifest } from './manifest.js';
import { openTokenizer } from './tokenizer.js';
import { warmShapes } from './warm-shapes.js';

export interface OpenModel {
  model: ServedModel;
  precision: Precision;
  /** What a member's graph is in: `precision`, or fp32 where the version was admitted in it for other roles alone. */
  precisionOf(member: Pick<Member, 'graph'>): Precision;
  /** Processes that hold its graphs. */
  pids(): number[];
  /** Of memory that releasing it would free: none while other models hold the same graphs. */
  bytes(): number;
  /** Drains what it was given, then lets its hosts go. */
  release(): Promise<void>;
}

/** What is measured once for all versions of a base model. */
export function budgetKind({ baseModel }: BundleManifest, precision: Precision): string {
  return `base ${baseModel.digest.slice(0, 16)} ${precision}`;
}

export interface OpenOptions {
  budgets?: BatchBudgets;
  /** Whether other models may be given back for it, where memory is short. */
  mayEvict?: boolean;
  /** On memory and processor time that nobody else wants. */
  spare?: boolean;
  /** One that the bundle has. */
  precision?: Precision;
}

export async function openBundle(
  {
    manifest,
    members,
    tokenizerJson,
    graphs,
    precisions,
  }: Pick<Bundle, 'manifest' | 'members' | 'tokenizerJson' | 'graphs'> & Partial<Pick<Bundle, 'precisions'>>,
  hostPool: HostPool,
  { budgets, mayEvict = true, spare = false, precision = 'fp32' }: OpenOptions = {},
): Promise<OpenModel> {
  let tokenizer;
  try {
    tokenizer = openTokenizer(tokenizerJson);
  } catch (cause) {
    throw invalid(`${manifest.tokenizer.file} is no tokenizer`, cause);
  }
  const files = precision === 'fp32' ? graphs : precisions!.get(precision)!;
  const open = () => hostPool.open(files, { mayEvict: mayEvict && !spare, spare });
  // Where only some members are in the precision, the slower graphs decide what a batch may hold.
  const full = graphs.filter((graph) => files.includes(graph));
  const [graph] = full.length > 0 ? full : files;
  const kind = budgetKind(manifest, full.length > 0 ? 'fp32' : precision);
  // Whoever has to wait for others measures them.
  const measured = budgets && graph && !spare ? { budgets, graph: graph.id } : undefined;
  if (measured && !(await measured.budgets.isKnown(kind))) {
    // ONNX Runtime keeps what the largest batch took: the hosts that serve are others.
    const trial = await open();
    try {
      await measured.budgets.budgetOf(kind, trial, measured.graph);
    } finally {
      await trial.release();
    }
  }
  const lease = await open();
  const { task, version, taskRevision, definition, policies, thresholds = {} } = manifest;
  const model: ServedModel = {
    task,
    version,
    taskRevision,
    definition,
    members,
    policies,
    thresholds,
    cutsAtEnds: manifest.rendering === undefined,
    tokenizer,
    runner: lease,
  };
  try {
    if (measured) {
      model.maxBatchTokens = await measured.budgets.budgetOf(kind, lease, measured.graph);
      const tokensPerSecond = await measured.budgets.rateOf(kind);
      if (tokensPerSecond !== undefined) model.tokensPerMs = tokensPerSecond / 1000;
    }
    if (lease.fixedShapes) {
      await warmShapes(model, lease.pids().length, model.maxBatchTokens ?? UNMEASURED_BATCH_TOKENS);
    }
  } catch (error) {
    await lease.release();
    throw error;
  }
  return {
    model,
    precision,
    precisionOf: (member) => (full.some(({ id }) => id === member.graph) ? 'fp32' : precision),
    pids: () => lease.pids(),
    bytes: () => lease.bytes,
    release: () => lease.release(),
  };
}
