/**
 * A task as the rest of the service sees it: the task file with every default filled in.
 * `parseTask` (definition.ts) is the only way to one. Pure data; imports nothing.
 */
export type TaskKind = 'single-label' | 'multi-label' | 'sentence-pair' | 'multiple-choice';
export type Method = 'pet' | 'efl' | 'embedding' | 'fine-tune';
export type ServingPolicy = 'ensemble' | 'student' | 'cascade';
export type Precision = 'fp32' | 'fp16' | 'int8';
export type SelectionStrategyName = 'top_confidence' | 'confident_contested' | 'fused';
export type VerdictName = 'worse' | 'inconclusive' | 'not-worse' | 'better';

export interface LabelDefinition {
  name: string;
  /** PET: one or more label words. */
  words: string[];
  /** EFL: the hypothesis. */
  description?: string;
  /** Earlier names, so that examples follow a renaming. */
  was: string[];
}

export interface TaskDefinition {
  name: string;
  kind: TaskKind;
  method: Method[];
  /** Empty for multiple-choice, where an item's choices are its labels. */
  labels: LabelDefinition[];
  templates: string[];
  /** What fine-tune, efl and embedding see of an item; absent: `inputOf` has it (template.ts). */
  input?: string;
  efl: {
    /** Random negatives for each example. */
    negatives: number;
    /** sentence-pair: the label of two sentences drawn at random, if they have one. */
    negativeLabel: string | null;
    /** A text is compared with the descriptions of that many labels at most. */
    shortlist: number;
  };
  /** Tokens, special ones included. */
  maxLength: number;
  routing: { accept: number; reviewContested: boolean; beforeCalibration: 'review' | 'accept' };
  serving: {
    policy: ServingPolicy;
    /** What the trainer makes of each member; fp32 always. */
    precisions: Precision[];
    /** Share of texts on which a precision's label must be fp32's: of all, and of those of any label. */
    minAgreement: number;
    minLabelAgreement: number;
  };
  pool: { capacity: number; auditRate: number };
  learning: {
    prior: 'uniform' | 'estimated';
    /** `plain`, or parts joined by `+`: mixup or manifold-mixup, r-drop, fgm or pgd. */
    strategies: string[];
    /** pet: strategies in turn over the templates, or each with each. */
    teachers: 'in-turn' | 'product';
    /** Teachers of each method, template and strategy. */
    seeds: number;
    selection: {
      strategy: SelectionStrategyName;
      threshold1: number;
      threshold2: number;
      threshold3: number;
      floor: number;
    };
    trigger: {
      newLabels: number | null;
      /** Cron, five fields, UTC. */
      schedule: string | null;
      drift: { falseAlarmsPerYear: number; minEffect: number } | null;
      /** After any run's end: of all triggers, or of each. */
      cooldownMinutes: number | { newLabels: number; schedule: number; drift: number };
    };
    rounds: number;
    /** Texts that a run gets to learn from without labels; any may be a pseudo-label. */
    unlabelled?: number;
    /** What a student is tried with; the best on cross-fitted predictions is trained. */
    student: { templates: 'best' | 'all'; strategies: string[] };
    /** What training learns from unlabelled texts besides pseudo-labels. */
    adaptation?: {
      /** Masked-language modelling on the run's unlabelled texts before the teachers. */
      tapt: boolean;
      passes: number;
      /** Of `budgetSeconds`, at most. */
      budgetShare: number;
      /** pet: weight of the auxiliary masked-language-modelling loss; 0: none. */
      auxiliary: number;
    };
    /** Share of the questions that two labelers are asked. */
    agreement?: { share: number };
    /** What a training run may take; the trainer plans its steps by it. */
    budgetSeconds: number;
    promotion: {
      minVerdict: VerdictName;
      margin: number;
      fourEyes: boolean;
      shadowMinutes: number;
      canaryPercent: number;
      /** Absent: 30. */
      canaryMinutes?: number;
      /** Absent: 60. */
      guardMinutes?: number;
    };
  };
  /** Absent: by the service's settings, and by the pool's capacity. */
  retention?: { days: number };
  stream: { input: string; output: string };
}

/** What is classified. */
export interface Item {
  text: string;
  textPair?: string;
  choices?: string[];
  fields?: Record<string, unknown>;
}

export type Split = 'train' | 'dev' | 'test';
