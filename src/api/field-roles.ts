/**
 * The least role for every field of the schema, and which task a root field is of. Nothing is left open by being
 * forgotten: a field that does not stand here is for an ADMIN of all tasks alone, and a test names it.
 */
import type { IdKind } from '../access/task-of.js';
import type { Role } from '../access/principal.js';

/**
 * How a field of Query, Mutation or Subscription is held to the tasks of who asks:
 * - `argument`: names the task, where it is given;
 * - `id`: the argument is the id of something that belongs to a task;
 * - `definition`: the argument is a task file;
 * - `results`: what is answered names its task in that field, and what is of another's is left out;
 * - `all`: only for who may use all tasks.
 */
export type Scope =
  | { argument: string; results?: string }
  | { id: string; kind: IdKind }
  | { definition: string }
  | { results: string }
  | 'all';

export interface RootRule {
  role: Role;
  scope: Scope;
}

const root = (role: Role, scope: Scope): RootRule => ({ role, scope });
const task = { argument: 'task' };
const run = { id: 'id', kind: 'run' } as const;
const candidate = { id: 'candidate', kind: 'candidate' } as const;
const promotion = { id: 'id', kind: 'promotion' } as const;

export const ROOT_RULES: Record<string, Record<string, RootRule>> = {
  Query: {
    tasks: root('CLIENT', { results: 'name' }),
    task: root('CLIENT', { argument: 'name' }),
    classify: root('CLIENT', task),
    reviewQueue: root('LABELER', task),
    modelVersion: root('CLIENT', task),
    modelVersionByAlias: root('ENGINEER', task),
    ledger: root('ENGINEER', task),
    verifyLedger: root('ENGINEER', 'all'),
    trainingRun: root('LABELER', run),
    replicas: root('ENGINEER', 'all'),
    deadLetters: root('ENGINEER', task),
    exportExamples: root('LABELER', task),
    keys: root('ADMIN', 'all'),
    pendingErasures: root('ADMIN', 'all'),
  },
  Mutation: {
    applyTask: root('ENGINEER', { definition: 'definition' }),
    importExamples: root('LABELER', task),
    ingest: root('CLIENT', task),
    label: root('LABELER', candidate),
    skip: root('LABELER', candidate),
    undoAnswer: root('LABELER', task),
    leaseQuestions: root('LABELER', task),
    releaseQuestions: root('LABELER', task),
    startRetrain: root('ENGINEER', task),
    cancelRun: root('ENGINEER', run),
    reproduceRun: root('ENGINEER', run),
    revokeExamples: root('ENGINEER', task),
    startShadow: root('ENGINEER', task),
    stopTrial: root('ENGINEER', task),
    approvePromotion: root('ENGINEER', promotion),
    rejectPromotion: root('ENGINEER', promotion),
    rollback: root('ENGINEER', task),
    replayDeadLetters: root('ENGINEER', task),
    dropDeadLetters: root('ENGINEER', task),
    forget: root('ADMIN', task),
    createKey: root('ADMIN', 'all'),
    rotateKey: root('ADMIN', 'all'),
    revokeKey: root('ADMIN', 'all'),
  },
  Subscription: {
    trainingRunProgress: root('LABELER', run),
    modelActivated: root('CLIENT', { argument: 'task', results: 'task' }),
    predictions: root('LABELER', task),
  },
};

/** Of a list that is long. */
const words = (...lines: string[]) => lines.flatMap((line) => line.split(' '));

/** Of the other types: role → fields. A CLIENT sees no candidates, no texts of others, no reports. */
export const FIELD_ROLES: Record<string, Partial<Record<Role, string[]>>> = {
  LabelScore: { CLIENT: ['label', 'probability'] },
  Disagreement: { CLIENT: ['voters', 'dissenting', 'unanimous', 'voteEntropy', 'jensenShannon'] },
  MemberPrediction: { CLIENT: ['member', 'weight', 'label', 'labels', 'distribution'] },
  Prediction: {
    CLIENT: words(
      'id label labels confidence calibrated margin entropy disagreement distribution',
      'members route modelVersion taskRevision',
    ),
  },
  Task: {
    CLIENT: ['name', 'kind', 'labels', 'revision', 'activeVersion'],
    LABELER: ['definition', 'versions', 'runs', 'promotions', 'pool', 'examples', 'findings', 'stream'],
    ENGINEER: ['liveAccuracy', 'drift', 'stopping', 'agreement'],
  },
  PoolStats: { LABELER: ['total', 'contested', 'awaitingReview', 'labelled', 'pseudoLabelled', 'outdated'] },
  ExampleStats: { LABELER: ['train', 'dev', 'test', 'byLabel', 'revoked'] },
  StreamStats: { LABELER: ['pending', 'scored', 'failed'] },
  LintFinding: { LABELER: ['severity', 'field', 'message'] },
  ModelVersion: {
    CLIENT: ['task', 'version', 'state', 'aliases', 'digest', 'createdAt', 'activatedAt'],
    LABELER: ['members', 'precision', 'precisions', 'report'],
    ENGINEER: ['trials'],
  },
  TrainingRun: {
    LABELER: words(
      'id task trigger state progress stage estimateSeconds error produced startedBy',
      'createdAt startedAt finishedAt reason reproduces',
    ),
    ENGINEER: ['dataDigest', 'reproduction', 'explanation', 'pseudoLabels'],
  },
  PseudoLabels: { ENGINEER: ['totalCount', 'nodes'] },
  PseudoLabel: {
    ENGINEER: words('itemKey item labels confidence contested strategy rule round votes'),
  },
  TeacherVote: { ENGINEER: ['teacher', 'labels'] },
  Trial: {
    ENGINEER: words(
      'id task version against kind percent startedBy startedAt endsAt endedAt outcome reason failure',
      'answered compared changed failed missed asked flips',
    ),
  },
  LabelFlip: { ENGINEER: ['champion', 'challenger', 'texts'] },
  LabelAccuracy: { ENGINEER: ['label', 'rows', 'right', 'accuracy', 'low', 'high'] },
  LiveAccuracy: {
    ENGINEER: words('version rows right accuracy low high byLabel calibrationError calibration', 'waiting skipped'),
  },
  DriftStatistic: { ENGINEER: ['name', 'stabilityIndex', 'distance', 'effect', 'p', 'alarm'] },
  DriftCheck: {
    ENGINEER: ['version', 'checkedAt', 'reference', 'present', 'level', 'statistics', 'alarm'],
  },
  LearningSlope: { ENGINEER: ['perDoubling', 'low', 'high'] },
  Stopping: { ENGINEER: ['advice', 'statement', 'slope', 'agreement'] },
  Revocation: { ENGINEER: ['examples', 'already', 'dryRun'] },
  Promotion: {
    LABELER: words(
      'id version champion verdict report decision decidedBy comment requestedAt',
      'decidedAt firstApprovalBy replicas',
    ),
  },
  Candidate: {
    LABELER: words('id text textPair choices fields prediction receivedAt duplicates reason priority', 'presentLabels'),
  },
  LeasedQuestions: { LABELER: ['questions', 'totalCount'] },
  Agreement: { ENGINEER: ['alpha', 'questions', 'disagreements', 'waiting', 'disputed'] },
  LedgerEntry: { ENGINEER: ['seq', 'at', 'task', 'kind', 'body', 'hash', 'previousHash'] },
  LedgerFinding: { ENGINEER: ['entries', 'brokenAt', 'lastHash', 'contains'] },
  CandidateEdge: { LABELER: ['cursor', 'node'] },
  CandidateConnection: { LABELER: ['edges', 'pageInfo', 'totalCount'] },
  PageInfo: { CLIENT: ['hasNextPage', 'endCursor'] },
  Replica: { ENGINEER: ['id', 'activeVersions', 'failures', 'seenAt'] },
  ReplicaOfVersion: { LABELER: ['id', 'state', 'serves', 'message', 'seenAt'] },
  ImportResult: { CLIENT: ['added', 'updated', 'unchanged', 'rejected'] },
  ImportError: { CLIENT: ['index', 'code', 'message'] },
  IngestResult: { CLIENT: ['accepted', 'duplicates', 'rejected'] },
  Example: { LABELER: ['text', 'textPair', 'choices', 'fields', 'labels', 'split', 'prediction'] },
  ExampleConnection: { LABELER: ['nodes', 'pageInfo', 'totalCount'] },
  ForgetResult: { ADMIN: ['digest', 'candidates', 'examples', 'streamItems', 'runRows', 'pendingFolders'] },
  DeadLetter: { ENGINEER: ['source', 'code', 'message', 'key', 'value', 'at'] },
  DeadLetterConnection: { ENGINEER: ['nodes', 'totalCount'] },
  AccessKey: {
    ADMIN: words(
      'name role tasks requestsPerMinute tokensPerMinute subscriptions createdAt createdBy',
      'revokedAt revokedBy secrets',
    ),
  },
  AccessSecret: { ADMIN: ['id', 'createdAt', 'createdBy', 'expiresAt', 'lastUsedAt'] },
  MadeKey: { ADMIN: ['key', 'accessKey'] },
};

const roles = new Map<string, Role>();
for (const [type, byRole] of Object.entries(FIELD_ROLES)) {
  for (const [role, fields] of Object.entries(byRole)) {
    for (const field of fields) roles.set(`${type}.${field}`, role as Role);
  }
}

export function ruleOf(type: string, field: string): RootRule {
  return ROOT_RULES[type]?.[field] ?? { role: 'ADMIN', scope: 'all' };
}

export function roleOf(type: string, field: string): Role {
  return roles.get(`${type}.${field}`) ?? ROOT_RULES[type]?.[field]?.role ?? 'ADMIN';
}
