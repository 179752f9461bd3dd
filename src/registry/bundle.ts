/**
 * Reading a model bundle: after `readBundle` its files are those that the manifest names, byte for byte, its manifest is
 * whole, and none of its paths leaves the folder. Everything else is BUNDLE_INVALID, which says what is wrong.
 * What can only be seen by running it is for golden.ts.
 */
import { createHash } from 'node:crypto';
import { readFile, realpath } from 'node:fs/promises';
import { isAbsolute, join, resolve, sep } from 'node:path';
import type { z } from 'zod';
import { FewloopError } from '../common/errors.js';
import { sha256OfFile } from '../common/file-digest.js';
import type { Member } from '../inference/types.js';
import type { GraphFile } from '../runtime/host-pool.js';
import { definitionDigest, parseTask } from '../task/definition.js';
import type { Precision, TaskDefinition } from '../task/types.js';
import {
  BUNDLE_FORMAT_VERSION,
  type BundleFile,
  type BundleManifest,
  type GoldenFile,
  type GraphEntry,
  type MemberEntry,
} from './manifest.js';
import { goldenSchema, manifestSchema, shortlistSchema } from './manifest-schema.js';
import { refuseExternalData } from './onnx-file.js';

export interface Bundle {
  folder: string;
  manifest: BundleManifest;
  /** SHA-256 of manifest.json: with the digests in it, of the whole bundle. */
  digest: string;
  /** In fp32. */
  graphs: GraphFile[];
  /** The graphs of each precision that was admitted, fp32 among them: of members that were not admitted in it, theirs
   * in fp32. */
  precisions: Map<Precision, GraphFile[]>;
  tokenizerJson: string;
  golden: GoldenFile;
  report: Record<string, unknown>;
  /** The manifest's members with their files read. */
  members: Member[];
}

/** `baseModel`: the folder of the base model, for graphs that are not in the bundle. */
export async function readBundle(folder: string, { baseModel }: { baseModel: string }): Promise<Bundle> {
  const root = await realpath(folder).catch((cause: unknown) => {
    throw invalid(`${folder} is not there`, cause);
  });
  const bytes = await readInside(root, 'manifest.json');
  const manifest = parseManifest(bytes);
  const tokenizer = await readVerified(root, manifest.tokenizer);
  const golden = parse(goldenSchema, await readVerified(root, manifest.golden), manifest.golden.file);
  const report = json(await readVerified(root, manifest.report), manifest.report.file) as Record<string, unknown>;
  const graphs: GraphFile[] = [];
  for (const { id, file, sha256, base } of manifest.graphs) {
    const path = base ? join(baseModel, 'model.onnx') : await pathInside(root, file);
    const actual = await fileDigest(path);
    if (actual !== sha256) {
      throw invalid(base ? 'it was built on another base model than this service has' : `${file} is not what it was`);
    }
    await refuseUnsafe(file, path, sha256);
    graphs.push({ id, path, sha256 });
  }
  const precisions = await readVariants(root, manifest, graphs);
  checkRelations(manifest, golden);
  const members = await Promise.all(manifest.members.map((entry) => readMember(root, manifest.definition, entry)));
  return {
    folder: root,
    manifest,
    digest: digest(bytes),
    graphs,
    precisions,
    tokenizerJson: tokenizer.toString('utf8'),
    golden,
    report,
    members,
  };
}

/** All variants are read, whether they will be served or not: a bundle with a changed file is refused. */
async function readVariants(
  root: string,
  manifest: BundleManifest,
  graphs: GraphFile[],
): Promise<Map<Precision, GraphFile[]>> {
  const variants = new Map<Precision, GraphFile[]>();
  for (const { id, variants: own = [] } of manifest.graphs) {
    for (const { precision, file, sha256 } of own) {
      const path = await pathInside(root, file);
      if ((await fileDigest(path)) !== sha256) throw invalid(`${file} is not what it was`);
      await refuseUnsafe(file, path, sha256);
      variants.set(precision, [...(variants.get(precision) ?? []), { id, path, sha256 }]);
    }
  }
  const found = new Map<Precision, GraphFile[]>([['fp32', graphs]]);
  for (const [precision, files] of variants) {
    const { admitted = true, roles } = manifest.precisions?.find((entry) => entry.precision === precision) ?? {};
    if (admitted) found.set(precision, graphsIn(precision, files, graphs, inFp32(manifest, roles)));
  }
  return found;
}

/** Ids of the graphs whose members' roles a precision was not admitted for. */
function inFp32({ members }: BundleManifest, roles: Member['role'][] | undefined): Set<string> {
  return new Set(members.filter(({ role }) => roles && !roles.includes(role)).map(({ graph }) => graph));
}

/** One of each graph, and no others: of those in `full` the ones in fp32. */
function graphsIn(precision: Precision, files: GraphFile[], graphs: GraphFile[], full: Set<string>): GraphFile[] {
  const found = graphs.map((graph) => (full.has(graph.id) ? graph : files.find(({ id }) => id === graph.id)));
  const lacking = graphs.filter((_, i) => !found[i]);
  if (lacking.length > 0) throw invalid(`it has no ${precision} graph for ${lacking.map(({ id }) => id).join(', ')}`);
  const wanted = graphs.filter(({ id }) => !full.has(id)).length;
  if (files.length !== wanted) throw invalid(`it has ${files.length} ${precision} graphs for ${wanted} graphs`);
  return found as GraphFile[];
}

/** Before ONNX Runtime sees it. */
async function refuseUnsafe(file: string, path: string, sha256: string): Promise<void> {
  await refuseExternalData(path, sha256, file).catch((cause: unknown) => {
    throw invalid((cause as Error).message, cause);
  });
}

/** SHA-256 (hex) of a file; BUNDLE_INVALID where it cannot be read. */
export async function fileDigest(path: string): Promise<string> {
  return sha256OfFile(path).catch((cause: unknown) => {
    throw invalid(`${path} cannot be read`, cause);
  });
}

export function digest(bytes: Buffer | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

export function invalid(what: string, cause?: unknown): FewloopError {
  return new FewloopError('BUNDLE_INVALID', `the bundle cannot be used: ${what}`, { cause });
}

/** Throws BUNDLE_INVALID. */
export function parseManifest(bytes: Buffer): BundleManifest {
  const value = json(bytes, 'manifest.json');
  const formatVersion = (value as { formatVersion?: unknown }).formatVersion;
  if (formatVersion !== BUNDLE_FORMAT_VERSION) {
    throw invalid(`its format is ${String(formatVersion)}; this service reads ${BUNDLE_FORMAT_VERSION}`);
  }
  const manifest = parse(manifestSchema, bytes, 'manifest.json') as unknown as BundleManifest;
  try {
    // As it stands in the manifest, so that defaults that came later do not change what it says.
    if (definitionDigest(manifest.definition) !== manifest.definitionDigest) throw new Error('its digest differs');
    return { ...manifest, definition: parseTask(JSON.stringify(manifest.definition)) };
  } catch (cause) {
    throw invalid(`the task definition: ${(cause as Error).message}`, cause);
  }
}

function json(bytes: Buffer, file: string): object {
  try {
    const value: unknown = JSON.parse(bytes.toString('utf8'));
    if (typeof value === 'object' && value !== null) return value;
  } catch (cause) {
    throw invalid(`${file} is no JSON`, cause);
  }
  throw invalid(`${file} is no JSON object`);
}

function parse<T>(schema: z.ZodType<T>, bytes: Buffer, file: string): T {
  const parsed = schema.safeParse(json(bytes, file));
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw invalid(`${file}: ${issue?.path.join('.')}: ${issue?.message}`);
}

async function readVerified(root: string, { file, sha256 }: BundleFile): Promise<Buffer> {
  const bytes = await readInside(root, file);
  // Parsed from these very bytes: the file is not read again.
  if (digest(bytes) !== sha256) throw invalid(`${file} is not what it was`);
  return bytes;
}

async function readMember(root: string, { labels }: TaskDefinition, entry: MemberEntry): Promise<Member> {
  const { shortlist, ...member } = entry;
  if (!shortlist) return member;
  const { file } = shortlist.embeddings;
  const vectors = parse(shortlistSchema, await readVerified(root, shortlist.embeddings), file);
  const lengths = new Set(labels.map(({ name }) => vectors[name]?.length));
  if (lengths.size !== 1 || lengths.has(undefined))
    throw invalid(`${file} has not a vector of one length for every label`);
  return { ...member, shortlist: { size: shortlist.size, vectors } };
}

async function readInside(root: string, file: string): Promise<Buffer> {
  const path = await pathInside(root, file);
  return readFile(path).catch((cause: unknown) => {
    throw invalid(`${file} cannot be read`, cause);
  });
}

/** The file's real path, which lies within the folder, symbolic links followed. */
async function pathInside(root: string, file: string): Promise<string> {
  const path = resolve(root, file);
  if (isAbsolute(file) || !path.startsWith(root + sep)) throw invalid(`${file} leaves the bundle's folder`);
  const real = await realpath(path).catch((cause: unknown) => {
    throw invalid(`${file} is missing`, cause);
  });
  if (!real.startsWith(root + sep)) throw invalid(`${file} leaves the bundle's folder`);
  return real;
}

function checkRelations(manifest: BundleManifest, golden: GoldenFile): void {
  const { definition, members, graphs, policies } = manifest;
  if (definition.name !== manifest.task) throw invalid(`it is for ${manifest.task} and defines ${definition.name}`);
  if (Object.keys(policies).length === 0) throw invalid('it has no serving policy');
  unique('graph', graphs);
  unique('member', members);
  const covered = new Set(golden.rows.flatMap((row) => row.members.map(({ member }) => member)));
  for (const member of members) {
    const graph = graphs.find(({ id }) => id === member.graph);
    if (!graph) throw invalid(`member ${member.id} names graph ${member.graph}, which it lacks`);
    if (!covered.has(member.id)) throw invalid(`${manifest.golden.file} has no text for member ${member.id}`);
    const taught = member.teachers?.find((id) => !members.some((one) => one.id === id && one.role === 'teacher'));
    if (taught !== undefined) throw invalid(`member ${member.id} names teacher ${taught}, which it lacks`);
    checkMember(definition, member, graph);
  }
  const heaviest = (role: string) =>
    Math.max(0, ...members.filter((one) => one.role === role).map((one) => one.weight));
  if (policies.ensemble && heaviest('teacher') === 0) throw invalid('its ensemble has no member with a weight');
  if (policies.student && heaviest('student') === 0) throw invalid('its student policy has no student');
  if (policies.cascade && !(policies.ensemble && policies.student))
    throw invalid('its cascade lacks the policy of its teachers or of its student');
  // Which labels a text has is decided at the ensemble's temperature, and so by all of its members.
  if (policies.cascade && definition.kind === 'multi-label')
    throw invalid('its cascade has a temperature of its own, which does not go with multi-label');
}

function checkMember({ kind, labels }: TaskDefinition, member: MemberEntry, graph: GraphEntry): void {
  const { id, method, labelWords, hypotheses, shortlist } = member;
  if (graph.kind !== (method === 'pet' ? 'pet' : 'classifier')) {
    throw invalid(`member ${id} is a ${method} member on the ${graph.kind} graph ${graph.id}`);
  }
  if (method !== 'pet' && kind === 'multiple-choice') throw invalid(`member ${id}: ${method} does not go with ${kind}`);
  if (method === 'pet' && kind === 'multi-label') throw invalid(`member ${id}: ${method} does not go with ${kind}`);
  const names = labels.map(({ name }) => name);
  checkLabels(names, member, 'words', method === 'pet' ? labelWords : undefined);
  checkLabels(names, member, 'hypotheses', hypotheses);
  if (shortlist && !hypotheses) throw invalid(`member ${id} has a shortlist and no hypotheses`);
}

function checkLabels(
  names: string[],
  { id }: MemberEntry,
  what: string,
  given: Record<string, unknown> | undefined,
): void {
  if (given === undefined) return;
  const named = Object.keys(given);
  if (names.length === named.length && names.every((name) => Object.hasOwn(given, name))) return;
  throw invalid(`member ${id} has ${what} for ${named.join(', ')}, the task's labels are ${names.join(', ')}`);
}

function unique(what: string, entries: { id: string }[]): void {
  const twice = entries.find((entry, i) => entries.findIndex(({ id }) => id === entry.id) < i);
  if (twice) throw invalid(`it has two of the ${what} ${twice.id}`);
}
