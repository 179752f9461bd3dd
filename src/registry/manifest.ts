/** `manifest.json` of a model bundle (format version 1): what the trainer and the zero-shot builder both write. */
import type { Member, PolicyCalibration } from '../inference/types.js';
import type { Precision, ServingPolicy, TaskDefinition } from '../task/types.js';

export const BUNDLE_FORMAT_VERSION = 1;
export const RENDERING = 2;

export interface BundleFile {
  /** Relative to the bundle's folder, except a base graph's, which is shared and found by its digest. */
  file: string;
  sha256: string;
}

export interface GraphEntry extends BundleFile {
  id: string;
  kind: 'pet' | 'classifier';
  precision: 'fp32';
  /** The same graph in the precisions that were admitted. */
  variants?: (BundleFile & { precision: Precision })[];
  /** True: the file is the base model's `model.onnx`, not part of the bundle folder. */
  base: boolean;
}

/** What came of a precision when the version was trained. */
export interface PrecisionEntry {
  precision: Precision;
  admitted: boolean;
  /** Whose graphs are in it: members of other roles answer in fp32 beside them. Absent: all, if it was admitted. */
  roles?: Member['role'][];
  /** Why it was refused, wholly or for some. */
  reason: string | null;
  /** Texts whose labels were compared with fp32's, and the share that agreed, by policy. */
  texts?: number;
  agreement?: Record<string, unknown>;
}

/** A member as the manifest has it: the vectors of its shortlist are in a file, label → numbers. */
export interface MemberEntry extends Omit<Member, 'shortlist'> {
  shortlist?: { size: number; embeddings: BundleFile };
  /** Of a student: ids of the members whose soft predictions it learned. Absent in versions from before it was named. */
  teachers?: string[];
}

export interface BundleManifest {
  formatVersion: number;
  task: string;
  version: number;
  taskRevision: number;
  definitionDigest: string;
  definition: TaskDefinition;
  /** How its members were shown texts. Absent: what is too long was cut at its end, wherever a span stood in it. */
  rendering?: typeof RENDERING;
  /** `zero-shot` or `run:<id>`. */
  origin: string;
  createdAt: string;
  graphs: GraphEntry[];
  /** Other than fp32. Absent: the version was made before there were any. */
  precisions?: PrecisionEntry[];
  members: MemberEntry[];
  policies: Partial<Record<ServingPolicy, PolicyCalibration>>;
  /** Multi-label: from which probability on a text has the label; 0.5 for one that is not named. */
  thresholds?: Record<string, number>;
  tokenizer: BundleFile;
  golden: BundleFile;
  report: BundleFile;
  baseModel: { name: string; digest: string };
  /** Digests of what it was trained on; null for zero-shot. */
  trainingData: { labelledDigest: string; labelled: number; unlabelledDigest: string; pseudoLabelled: number } | null;
  libraries: Record<string, string>;
}

/** A rendering of a member with hypotheses: one a label, in label order, whether the shortlist holds it or not. */
export interface GoldenRow {
  ids: number[];
  typeIds: number[];
}

interface GoldenMember extends GoldenRow {
  member: string;
  maskPositions: number[];
  distribution: number[];
  rows?: GoldenRow[];
}

/** `golden.json`: at least one row a member; `distribution` after offsets, before temperature, in label order. */
export interface GoldenFile {
  rows: {
    item: { text: string; textPair?: string; choices?: string[]; fields?: Record<string, unknown> };
    members: GoldenMember[];
  }[];
}
