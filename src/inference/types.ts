/** The plain values that pass between the steps of inference, and the port to the models. */
import type { Trace } from '../common/tracing/tracing.js';
import type { Item, Method, ServingPolicy, TaskDefinition } from '../task/types.js';

/** One rendering, as token ids: all arrays have one entry a token, no padding. */
export interface Encoding {
  ids: number[];
  typeIds: number[];
  /** Positions of the masks, in order. */
  maskPositions: number[];
}

export type RouteName = 'ACCEPT' | 'REVIEW';

export interface LabelScore {
  label: string;
  probability: number;
}

export interface Disagreement {
  voters: number;
  dissenting: number;
  unanimous: boolean;
  /** Entropy of the votes over log(min(voters, labels)), in [0, 1]; multi-label: see independent.ts. */
  voteEntropy: number;
  /** Generalised Jensen-Shannon divergence of the members, nats, before temperature. */
  jensenShannon: number;
}

export interface MemberPrediction {
  member: string;
  weight: number;
  /** Its most probable label. */
  label: string;
  /** What it would answer on its own. */
  labels: string[];
  distribution: LabelScore[];
}

export interface Prediction {
  label: string | null;
  labels: string[];
  confidence: number;
  calibrated: boolean;
  margin: number;
  entropy: number;
  disagreement: Disagreement | null;
  /** Highest probability first. */
  distribution: LabelScore[];
  members: MemberPrediction[];
  route: RouteName;
  modelVersion: number;
  taskRevision: number;
}

export interface Answered {
  ok: true;
  prediction: Prediction;
  /** [hidden], of the first member's row. */
  embedding: Float32Array;
  itemKey: string;
}

/** A member of a bundle's manifest, as inference needs it. */
export interface Member {
  id: string;
  role: 'teacher' | 'student';
  method: Method;
  /** Id of the graph in the manifest. */
  graph: string;
  template: string;
  /** PET: words of each label, in the order of the definition's labels. Empty for multiple-choice and other methods. */
  labelWords: Record<string, string[]>;
  /** Tagging: what each label says of a text that has it. Absent: the graph has label words or an output a label. */
  hypotheses?: Record<string, string>;
  /** Tagging: only the `size` labels whose vectors are nearest to the text's embedding are asked about. */
  shortlist?: { size: number; vectors: Record<string, number[]> };
  strategy: string;
  weight: number;
  /** Added to each label's score before it becomes a probability; empty means none. */
  offsets: Record<string, number>;
}

export interface PolicyCalibration {
  temperature: number;
  calibrated: boolean;
}

/** Rows of one batch for one graph, already padded; row-major. A classifier's graph takes no masks and no words. */
export interface HostBatch {
  graph: string;
  rows: number;
  length: number;
  masks: number;
  words: number;
  inputIds: BigInt64Array;
  attentionMask: BigInt64Array;
  tokenTypeIds: BigInt64Array;
  /** [rows, masks] */
  maskPositions: BigInt64Array;
  /** [rows, words, masks] */
  labelTokens: BigInt64Array;
}

export interface HostResult {
  /** PET: [rows, words]; classifier: [rows, outputs] */
  logits: Float32Array;
  /** [rows, hidden], L2-normalised [CLS] state */
  embeddings: Float32Array;
}

/** The port to a model host: real (runtime/) or in memory (tests). */
export interface GraphRunner {
  /** Batches are to have few shapes (shapes.ts). */
  readonly fixedShapes?: boolean;
  /** What it runs on, where others may run on the same: theirs and its rows then take turns. */
  readonly hosts?: object;
  run(batch: HostBatch): Promise<HostResult>;
}

/** A model as it is served: what a bundle's manifest says, with its tokenizer and its graphs open. */
export interface ServedModel {
  task: string;
  version: number;
  taskRevision: number;
  definition: TaskDefinition;
  members: Member[];
  policies: Partial<Record<ServingPolicy, PolicyCalibration>>;
  /** Multi-label: from which probability on a text has the label; 0.5 for one that is not named. */
  thresholds: Record<string, number>;
  /** It was trained before fields were cut around the spans that they hold. */
  cutsAtEnds?: boolean;
  tokenizer: TextTokenizer;
  runner: GraphRunner;
  /** Padded tokens of a batch at which its graphs are fastest here; absent: the queue's own. */
  maxBatchTokens?: number;
  /** At such batches, of all its hosts together, as measured before it served; absent: not measured. */
  tokensPerMs?: number;
}

/** The library's tokenizer, reduced to what rendering needs: ids of plain text, no special tokens added. */
export interface TextTokenizer {
  encode(texts: string[]): Promise<number[][]>;
  tokenToId(token: string): number | undefined;
}

/** Who waits: a person or an app, a stream, nobody. */
export type Priority = 'interactive' | 'bulk' | 'background';

export interface ClassifyRequest {
  items: Item[];
  policy?: ServingPolicy;
  /** Absolute, epoch milliseconds. */
  deadlineAt?: number;
  /** Aborted when whoever asked is gone: what has not reached a model is dropped then. */
  signal?: AbortSignal;
  priority: Priority;
  /** The model is to be asked, whatever was answered recently. */
  anew?: boolean;
  /** Where in a trace the call stands. */
  trace?: Trace;
}
