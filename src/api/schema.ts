/**
 * The GraphQL schema that is served: the contract's (test/contract/schema.graphql; a test compares them) and the
 * additions at its end.
 */
export const typeDefs = /* GraphQL */ `
  scalar DateTime
  scalar JSONObject

  enum TaskKind {
    SINGLE_LABEL
    MULTI_LABEL
    SENTENCE_PAIR
    MULTIPLE_CHOICE
  }
  enum Method {
    PET
    EFL
    EMBEDDING
    FINE_TUNE
  }
  "What happens to a scored text: ACCEPT it as it is, or REVIEW it by a person."
  enum Route {
    ACCEPT
    REVIEW
  }
  enum SelectionStrategy {
    TOP_CONFIDENCE
    CONFIDENT_CONTESTED
    FUSED
  }
  "How the review queue orders candidates."
  enum QueryStrategy {
    LEAST_CONFIDENCE
    BREAKING_TIES
    ENTROPY
    VOTE_ENTROPY
    BALD
    DIVERSE
    RANDOM_AUDIT
  }
  enum ModelState {
    CANDIDATE
    SHADOW
    CANARY
    ACTIVE
    RETIRED
    REJECTED
  }
  enum RunState {
    QUEUED
    RUNNING
    SUCCEEDED
    FAILED
    CANCELLED
  }
  enum RunTrigger {
    MANUAL
    SCHEDULE
    NEW_LABELS
    DRIFT
  }
  "NOT_WORSE: the interval of the difference lies above minus the task's margin. Order: WORSE < INCONCLUSIVE < NOT_WORSE < BETTER."
  enum Verdict {
    WORSE
    INCONCLUSIVE
    NOT_WORSE
    BETTER
  }
  enum Decision {
    APPROVED
    REJECTED
    SUPERSEDED
  }
  enum Split {
    TRAIN
    DEV
    TEST
  }
  enum ServingPolicy {
    ENSEMBLE
    STUDENT
    CASCADE
  }
  enum Role {
    CLIENT
    LABELER
    ENGINEER
    ADMIN
  }

  input TextInput {
    "Echoed in the prediction."
    id: ID
    text: String!
    "Second sentence, for SENTENCE_PAIR."
    textPair: String
    "Options, for MULTIPLE_CHOICE; the prediction's label is one of them."
    choices: [String!]
    "Further fields that the task's templates name."
    fields: JSONObject
  }

  input ClassifyOptions {
    "Each member's own distribution in the answer."
    members: Boolean = false
    "Answer by then or fail with DEADLINE_EXCEEDED; late work is dropped before it reaches a model."
    deadlineMs: Int
    "Overrides the task's policy."
    policy: ServingPolicy
  }

  type LabelScore {
    label: String!
    probability: Float!
  }

  type Disagreement {
    "Members that were asked for this text."
    voters: Int!
    "Members whose own best label (MULTI_LABEL: label set) differs from the ensemble's."
    dissenting: Int!
    unanimous: Boolean!
    "Entropy of the votes divided by log(min(voters, labels)), in [0, 1]; MULTI_LABEL: mean over labels of the binary entropy of votes."
    voteEntropy: Float!
    """
    H(weighted mean distribution) - weighted mean of H(member distribution), in nats, before temperature:
    generalised Jensen-Shannon divergence. MULTI_LABEL: mean over labels.
    """
    jensenShannon: Float!
  }

  type MemberPrediction {
    member: String!
    weight: Float!
    "Its most probable label."
    label: String!
    "What it would answer on its own: one label, or for MULTI_LABEL every label over its threshold."
    labels: [String!]!
    distribution: [LabelScore!]!
  }

  type Prediction {
    id: ID
    "Best label; for MULTI_LABEL the best one over its threshold, null where none is."
    label: String
    "MULTI_LABEL: every label over its threshold."
    labels: [String!]!
    "Probability of label; MULTI_LABEL: of the least certain decision, a label taken or left."
    confidence: Float!
    "Whether confidence was calibrated on enough labelled rows."
    calibrated: Boolean!
    "Best minus second-best probability; MULTI_LABEL: distance of the nearest label to its threshold."
    margin: Float!
    "Shannon entropy of the distribution, in nats; MULTI_LABEL: mean over labels of the binary entropy."
    entropy: Float!
    "Null where fewer than two members were asked."
    disagreement: Disagreement
    "Highest probability first; sums to 1 except for MULTI_LABEL."
    distribution: [LabelScore!]!
    members: [MemberPrediction!]
    route: Route!
    modelVersion: Int!
    taskRevision: Int!
  }

  type Task {
    name: String!
    kind: TaskKind!
    labels: [String!]!
    "The task file as applied (canonical JSON)."
    definition: JSONObject!
    revision: Int!
    activeVersion: ModelVersion
    versions(first: Int = 20): [ModelVersion!]!
    runs(first: Int = 20): [TrainingRun!]!
    promotions(first: Int = 20): [Promotion!]!
    pool: PoolStats!
    examples: ExampleStats!
  }

  type PoolStats {
    total: Int!
    contested: Int!
    awaitingReview: Int!
    labelled: Int!
    pseudoLabelled: Int!
  }
  type ExampleStats {
    train: Int!
    dev: Int!
    test: Int!
    byLabel: JSONObject!
  }

  type ModelVersion {
    task: String!
    version: Int!
    state: ModelState!
    "SHA-256 of the bundle's manifest."
    digest: String!
    members: [JSONObject!]!
    "The precision that this process serves it in: fp32, fp16 or int8; null where it does not serve it."
    precision: String
    "Other precisions: admitted or why not, agreement with fp32 by policy and label."
    precisions: [JSONObject!]!
    "accuracy, macroF1, ece, augrc, latency, each with its confidence interval and the data set's digest."
    report: JSONObject!
    createdAt: DateTime!
    activatedAt: DateTime
  }

  type TrainingRun {
    id: ID!
    task: String!
    trigger: RunTrigger!
    state: RunState!
    "In [0, 1]."
    progress: Float!
    stage: String
    "From the trainer's start to its end, by the steps that it measured; null before it has."
    estimateSeconds: Float
    error: String
    produced: ModelVersion
    createdAt: DateTime!
    startedAt: DateTime
    finishedAt: DateTime
  }

  type Promotion {
    id: ID!
    version: ModelVersion!
    champion: ModelVersion
    verdict: Verdict!
    "The comparison on the same held-out rows: paired counts, p-value, interval, needed sample size."
    report: JSONObject!
    decision: Decision
    decidedBy: String
    comment: String
    requestedAt: DateTime!
    decidedAt: DateTime
  }

  type Candidate {
    id: ID!
    text: String!
    textPair: String
    choices: [String!]
    fields: JSONObject
    prediction: Prediction!
    receivedAt: DateTime!
  }
  type CandidateEdge {
    cursor: String!
    node: Candidate!
  }
  type PageInfo {
    hasNextPage: Boolean!
    endCursor: String
  }
  type CandidateConnection {
    edges: [CandidateEdge!]!
    pageInfo: PageInfo!
    "Up to 1,000: so many or more."
    totalCount: Int!
  }

  type Replica {
    id: ID!
    activeVersions: JSONObject!
    "By task: the active version that it cannot serve now, and why; it still serves the one before."
    failures: JSONObject!
    seenAt: DateTime!
  }

  input ExampleInput {
    text: String!
    textPair: String
    choices: [String!]
    fields: JSONObject
    labels: [String!]!
    "Empty: the service assigns it, by a stable hash of the normalised text."
    split: Split
  }
  type ImportResult {
    added: Int!
    updated: Int!
    unchanged: Int!
    rejected: [ImportError!]!
  }
  type ImportError {
    index: Int!
    code: String!
    message: String!
  }
  type IngestResult {
    accepted: Int!
    duplicates: Int!
    rejected: [ImportError!]!
  }

  type Query {
    tasks: [Task!]!
    task(name: String!): Task
    """
    In the order of inputs; one that fails is null, with its error at that path, and the others are answered. Texts are
    not kept: those that are to be asked about, drawn for the audit or watched for drift come by ingest or Kafka.
    """
    classify(task: String!, inputs: [TextInput!]!, options: ClassifyOptions): [Prediction]!
    reviewQueue(
      task: String!
      first: Int = 20
      after: String
      strategy: QueryStrategy
      filter: QuestionFilter
    ): CandidateConnection!
    modelVersion(task: String!, version: Int!): ModelVersion
    trainingRun(id: ID!): TrainingRun
    replicas: [Replica!]!
  }

  type Mutation {
    """
    Creates the task, or a new revision of it; the definition is a task file, YAML or JSON. ENGINEER.
    retire: labels that have examples may be missing from it; those examples stay and take no further part.
    """
    applyTask(definition: String!, retire: Boolean = false): Task!
    "LABELER."
    importExamples(task: String!, examples: [ExampleInput!]!): ImportResult!
    "Unlabelled texts into the same path as the stream. CLIENT."
    ingest(task: String!, inputs: [TextInput!]!): IngestResult!
    "strategy: that of the queue which asked, so that its labels can be revoked; of leased questions it is known. LABELER."
    label(candidate: ID!, labels: [String!]!, strategy: QueryStrategy): Candidate!
    skip(candidate: ID!, reason: String, strategy: QueryStrategy): Candidate!
    "ENGINEER."
    startRetrain(task: String!): TrainingRun!
    cancelRun(id: ID!): TrainingRun!
    "Loads the version beside the active one and scores live traffic with it; answers stay the active one's."
    startShadow(task: String!, version: Int!, minutes: Float): ModelVersion!
    """
    ENGINEER; not the person who started the run, where the task asks for four eyes. Of a run that a trigger started two
    different people are to approve then, and after the first it has no decision yet.
    override: although the verdict is under the task's minVerdict; needs a comment, and the ledger keeps it.
    """
    approvePromotion(id: ID!, comment: String, override: Boolean = false): Promotion!
    rejectPromotion(id: ID!, comment: String!): Promotion!
    "Back to the version that was active before. ENGINEER."
    rollback(task: String!, reason: String!): ModelVersion!
  }

  type Subscription {
    trainingRunProgress(id: ID!): TrainingRun!
    modelActivated(task: String): ModelVersion!
    "A live sample of what the task scores, at most that many a second."
    predictions(task: String!, perSecond: Int = 5): Prediction!
  }

  enum LintSeverity {
    ERROR
    WARNING
  }
  type LintFinding {
    severity: LintSeverity!
    "Path in the task file."
    field: String!
    message: String!
  }

  extend type Task {
    "What the linter says of the task file as applied; of skewed priors too, as the zero-shot version measured them."
    findings: [LintFinding!]!
    "Texts that came through the stream."
    stream: StreamStats!
  }
  extend type PoolStats {
    "Open candidates whose scores are of another version than the active one: they are being scored anew, the most uncertain first."
    outdated: Int!
  }
  "Whole numbers, which may be more than an Int holds."
  type StreamStats {
    "In Kafka the lag of the task's input topic, whichever tasks read it."
    pending: Float!
    scored: Float!
    failed: Float!
  }

  enum QuestionReason {
    "Chosen by its score."
    STRATEGY
    "Drawn at random."
    AUDIT
    "Answered by one labeler; another is asked the same."
    SECOND_ANSWER
    "Two labelers differ, a third decides."
    ADJUDICATION
    "The label that it has is in doubt."
    LABEL_ISSUE
    "A version on trial answers it otherwise than the active one."
    CHALLENGER
  }
  extend type Candidate {
    "Open texts that are nearly the same: the answer closes them too."
    duplicates: Int!
    reason: QuestionReason!
    "Where it is asked again, how urgent that is; else 0."
    priority: Float!
    "LABEL_ISSUE: the labels that are in doubt."
    presentLabels: [String!]
  }
  "Which of the questions that a strategy chooses; the audit slice's stay among them, or they were no random ones."
  input QuestionFilter {
    "Whether any member dissents."
    contested: Boolean
    "What it is predicted to be; MULTI_LABEL: its best label."
    label: String
    maxConfidence: Float
    minVoteEntropy: Float
    minJensenShannon: Float
    "Over 0: only questions that are asked again. 3: to be decided between two answers; 2: a second answer; up to 1: labels in doubt, and texts on which a challenger differs."
    minPriority: Float
  }
  type LeasedQuestions {
    questions: [Candidate!]!
    "Of the whole queue, up to 1,000: so many or more."
    totalCount: Int!
  }
  "How far labelers agree, on the questions that two of them answered (learning.agreement)."
  type Agreement {
    "Krippendorff's alpha: 1 they always agree, 0 as by chance; null where too little was answered twice."
    alpha: Float
    questions: Int!
    disagreements: Int!
    "Questions that wait for a second labeler."
    waiting: Int!
    "Questions that wait for a third, who decides."
    disputed: Int!
  }
  extend type Task {
    agreement: Agreement!
  }

  "A labelled text, as it is kept."
  type Example {
    text: String!
    textPair: String
    choices: [String!]
    fields: JSONObject
    labels: [String!]!
    split: Split!
    "What the service said of it last, where it came through the pool and predictions are asked for."
    prediction: Prediction
  }
  type ExampleConnection {
    nodes: [Example!]!
    pageInfo: PageInfo!
    totalCount: Int!
  }
  type ForgetResult {
    "SHA-256 of the normalised text, as the ledger keeps it; of several that had one id, of the newest."
    digest: String!
    candidates: Int!
    examples: Int!
    streamItems: Int!
    "Rows in the data of training runs that the answering process keeps itself."
    runRows: Int!
    "Data folders of other processes whose runs may hold it still; see pendingErasures."
    pendingFolders: Int!
  }

  "A record that could not be scored."
  type DeadLetter {
    "Where it came from: topic:partition:offset, or the id of a record of the embedded stream."
    source: String!
    "An error code."
    code: String!
    message: String!
    key: String
    "As UTF-8."
    value: String
    at: DateTime!
  }
  type DeadLetterConnection {
    nodes: [DeadLetter!]!
    "In Kafka an upper bound: markers of transactions count too."
    totalCount: Int!
  }

  type LedgerEntry {
    seq: ID!
    at: DateTime!
    task: String!
    kind: String!
    body: JSONObject!
    "SHA-256 of this entry and the hash before it."
    hash: String!
    previousHash: String!
  }

  type LedgerFinding {
    "Entries that hold, from the first on."
    entries: Int!
    "The first that is not what was written; null: all hold."
    brokenAt: ID
    "Of the last that holds. Kept elsewhere, it shows later whether the end was cut off."
    lastHash: String!
    "Whether the hash that was asked for is in the chain; null where none was."
    contains: Boolean
  }

  enum ReplicaState {
    SERVING
    "It still serves another version, or none."
    BEHIND
    "It cannot serve the version; the one before answers there."
    FAILED
  }

  type ReplicaOfVersion {
    id: ID!
    state: ReplicaState!
    "That it serves of the task; null: none."
    serves: Int
    "Why it failed."
    message: String
    seenAt: DateTime!
  }

  extend type Promotion {
    "Who has approved it where two are to (four eyes, of a run that a trigger started): it is open until another does."
    firstApprovalBy: String
    "What has become of the version at each replica, while it is the active one; else none."
    replicas: [ReplicaOfVersion!]!
  }

  extend type ModelVersion {
    "champion: the one that answers. challenger: the one whose promotion is to be decided."
    aliases: [String!]!
  }

  enum TrialKind {
    "Asked too; what it says is compared and told to nobody."
    SHADOW
    "Answers a share of the requests."
    CANARY
  }
  enum TrialOutcome {
    "A shadow's time is over; a canary has become the active version."
    COMPLETED
    "By a person."
    STOPPED
    "By itself, for a reason."
    WENT_BACK
    "Another version became active, or a version was decided on."
    SUPERSEDED
  }
  "A version on live traffic beside the active one."
  type Trial {
    id: ID!
    task: String!
    version: Int!
    "The version that was active when it began."
    against: Int!
    kind: TrialKind!
    "CANARY: of the requests."
    percent: Float
    startedBy: String!
    startedAt: DateTime!
    "Null: until somebody stops it, or decides."
    endsAt: DateTime
    endedAt: DateTime
    outcome: TrialOutcome
    reason: String
    "Why a process that serves could not open the version; null: none failed, or it was opened later."
    failure: String
    "CANARY: texts that it has answered, without answers from the cache."
    answered: Int!
    "Texts that both versions have answered."
    compared: Int!
    "Of them, with other labels."
    changed: Int!
    "Texts that the version on trial failed on."
    failed: Int!
    "Texts that were not compared, because nothing was to spare."
    missed: Int!
    "Disagreements that became questions."
    asked: Int!
    "The most frequent first; none of MULTIPLE_CHOICE."
    flips: [LabelFlip!]!
  }
  "MULTI_LABEL: of each label that went or came, with (none) on the other side."
  type LabelFlip {
    champion: String!
    challenger: String!
    texts: Int!
  }
  extend type ModelVersion {
    "On live traffic, newest first."
    trials: [Trial!]!
  }

  extend type Query {
    "alias: champion or challenger. ENGINEER."
    modelVersionByAlias(task: String!, alias: String!): ModelVersion
    "Of a task, newest first. after: seq of the last entry of the page before. ENGINEER."
    ledger(task: String!, first: Int = 50, after: String): [LedgerEntry!]!
    "Reads the whole chain. hash: of an entry that must be in it. ENGINEER."
    verifyLedger(hash: String): LedgerFinding!
  }

  extend type Query {
    "Of the input that the task reads, the oldest. ENGINEER."
    deadLetters(task: String!, first: Int = 100): DeadLetterConnection!
    "Data folders whose runs may hold a text that was forgotten: trainers erase it within a minute. ADMIN."
    pendingErasures: Int!
    "Every labelled text of a task, page by page, in an order that stays."
    exportExamples(task: String!, first: Int = 500, after: String, predictions: Boolean = false): ExampleConnection!
  }

  extend type Mutation {
    """
    The first questions of the queue, which no other labeler is asked for five minutes; whoever leases again keeps what
    they hold. Fewer than asked for where others hold the rest. LABELER.
    """
    leaseQuestions(task: String!, first: Int = 10, strategy: QueryStrategy, filter: QuestionFilter): LeasedQuestions!
    "What the caller holds may be asked of others again. LABELER."
    releaseQuestions(task: String!): Boolean!
    "Takes the caller's newest answer back: it stays in the history, and all else is as it was before it. LABELER."
    undoAnswer(task: String!): Candidate!
    "Ends the task's trial: a shadow is a candidate again, a canary is rejected. ENGINEER."
    stopTrial(task: String!, reason: String!): Trial!
    "Sends the oldest dead letters through the stream once more. Returns how many. ENGINEER."
    replayDeadLetters(task: String!, first: Int = 100): Int!
    "Gives the oldest dead letters up. Returns how many. ENGINEER."
    dropDeadLetters(task: String!, first: Int = 100): Int!
    """
    Erases a text, named by itself, by the id it was ingested with (all texts that had it), or by the digest that the
    ledger keeps of it, wherever it is kept. ADMIN.
    """
    forget(task: String!, text: String, id: ID, digest: String): ForgetResult!
  }

  "An API key: who acts, as key:NAME in every record."
  type AccessKey {
    name: String!
    role: Role!
    "Null: all."
    tasks: [String!]
    "Null: as the service is configured; 0: no limit. So the next two."
    requestsPerMinute: Int
    "Texts × members × tokens of a text."
    tokensPerMinute: Int
    "Open at once."
    subscriptions: Int
    createdAt: DateTime!
    createdBy: String!
    revokedAt: DateTime
    revokedBy: String
    "Newest first; several prove the key while it is rotated."
    secrets: [AccessSecret!]!
  }
  type AccessSecret {
    "As it stands in the key: fwl_ID_…"
    id: ID!
    createdAt: DateTime!
    createdBy: String!
    expiresAt: DateTime
    "To half a minute."
    lastUsedAt: DateTime
  }
  type MadeKey {
    "Shown this once; the service keeps its hash alone."
    key: String!
    accessKey: AccessKey!
  }

  extend type Query {
    "ADMIN."
    keys: [AccessKey!]!
  }

  extend type Mutation {
    "A name is given once and never again. ADMIN."
    createKey(
      name: String!
      role: Role!
      tasks: [String!]
      expiresInDays: Int
      requestsPerMinute: Int
      tokensPerMinute: Int
      subscriptions: Int
    ): MadeKey!
    "A further secret for the key; those before it end after the grace. Its life is as long as the last one's, unless it is given. ADMIN."
    rotateKey(name: String!, graceMinutes: Int = 1440, expiresInDays: Int): MadeKey!
    "Ends the key at once. ADMIN."
    revokeKey(name: String!): AccessKey!
  }

  type LabelAccuracy {
    label: String!
    rows: Int!
    right: Int!
    accuracy: Float!
    low: Float!
    high: Float!
  }
  "The active version by answers to questions drawn at random alone, each beside the prediction as it was served."
  type LiveAccuracy {
    version: Int!
    rows: Int!
    right: Int!
    accuracy: Float
    low: Float!
    high: Float!
    "Of the texts that people gave the label, those that were answered with it; labels with 20 of them at least."
    byLabel: [LabelAccuracy!]!
    "Null under 200 rows."
    calibrationError: Float
    "OK, or INSUFFICIENT where there are too few rows."
    calibration: String!
    "Texts that were drawn: not answered yet, and passed over."
    waiting: Int!
    skipped: Int!
  }

  type DriftStatistic {
    "labels, confidence or embeddings."
    name: String!
    "Null for embeddings."
    stabilityIndex: Float
    "Jensen-Shannon distance; of embeddings the effect itself. What chance adds is in it."
    distance: Float!
    "In [0, 1], without what chance adds."
    effect: Float!
    p: Float!
    alarm: Boolean!
  }
  "The present window of the task's texts against that after the promotion of its active version."
  type DriftCheck {
    version: Int!
    checkedAt: DateTime!
    "Texts of the two windows."
    reference: Int!
    present: Int!
    "The p-value up to which a statistic counts, by falseAlarmsPerYear."
    level: Float!
    statistics: [DriftStatistic!]!
    alarm: Boolean!
  }

  enum StoppingAdvice {
    UNKNOWN
    GO_ON
    STOP
  }
  "Accuracy that twice the labels bring, with its 95 % interval."
  type LearningSlope {
    perDoubling: Float!
    low: Float!
    high: Float!
  }
  type Stopping {
    advice: StoppingAdvice!
    statement: String!
    slope: LearningSlope
    "Mean kappa of the last three pairs of successive versions on unlabelled texts; null where there are fewer."
    agreement: Float
  }

  enum ExampleOrigin {
    IMPORT
    ANSWER
    AUDIT
  }
  "Of the fields that are named all have to hold."
  input SourceInput {
    labeler: String
    "IMPORT, ANSWER to a question that a strategy chose, or AUDIT."
    origin: ExampleOrigin
    "By which the question was chosen: known where it was leased, or named with the answer."
    strategy: QueryStrategy
    "By when the label was given."
    since: DateTime
    until: DateTime
  }
  type Revocation {
    "Examples that changed, or would."
    examples: Int!
    "Of the same source, those that were that way already."
    already: Int!
    dryRun: Boolean!
  }

  extend type Task {
    "Null without an active version."
    liveAccuracy: LiveAccuracy
    "The last check; null where the task does not ask for it, or none was made of the active version."
    drift: DriftCheck
    "Whether further answers still pay."
    stopping: Stopping!
  }
  extend type ExampleStats {
    "Of revoked sources; in no other count."
    revoked: Int!
  }
  extend type TrainingRun {
    "Why it was started."
    reason: String
    "Who asked for it; null where nobody did."
    startedBy: String
    dataDigest: String
    "The run whose data and settings it repeats."
    reproduces: ID
    "Of a repetition: whether its bundle is the first one's."
    reproduction: JSONObject
    "Settings, data, libraries; whether it can be repeated. ENGINEER."
    explanation: JSONObject!
    "What the student learned beside human labels, in the order of its selection; null before that, and where the answering process does not keep the run's folder. ENGINEER."
    pseudoLabels(first: Int = 50, after: Int = 0): PseudoLabels
  }
  type PseudoLabels {
    totalCount: Int!
    nodes: [PseudoLabel!]!
  }
  "A text as the teachers labelled it, and why it was selected."
  type PseudoLabel {
    itemKey: String!
    "Text, textPair, choices, fields; null where the text was forgotten since."
    item: JSONObject
    labels: [String!]!
    "Of the teachers together, calibrated."
    confidence: Float!
    "Whether a teacher says otherwise."
    contested: Boolean!
    "Of learning.selection, and which of its rules."
    strategy: String!
    rule: String!
    "Of self-training, from 1."
    round: Int!
    votes: [TeacherVote!]!
  }
  type TeacherVote {
    teacher: String!
    labels: [String!]!
  }
  extend type Mutation {
    "A run with the data and settings of another, to see whether the same comes of it; it asks for no promotion. ENGINEER."
    reproduceRun(id: ID!): TrainingRun!
    "The examples of a source stay kept and take no part in any later run, gate or figure; restore takes that back. ENGINEER."
    revokeExamples(task: String!, source: SourceInput!, restore: Boolean = false, dryRun: Boolean = false): Revocation!
  }
`;
