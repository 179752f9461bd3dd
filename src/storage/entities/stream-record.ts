import { Column, CreateDateColumn, Entity, Index, PrimaryColumn } from 'typeorm';

/**
 * What became of a Kafka record: the prediction's history, without the text. Its key is the record's place for ever: a
 * topic that is deleted and made again has another id.
 */
@Entity('stream_record')
@Index('stream_record_task_split_group_idx', ['task', 'splitGroup'])
@Index('stream_record_task_external_id_idx', ['task', 'externalId'])
export class StreamRecordRow {
  @PrimaryColumn('text') clusterId: string;
  @PrimaryColumn('text') topicId: string;
  @PrimaryColumn('integer') partition: number;
  @PrimaryColumn('bigint') offset: string;
  @Column('text') topic: string;
  /** The record's own timestamp: another one at the same place is another record. */
  @Column('timestamptz') recordedAt: Date;
  /** Null where the record names none that exists. */
  @Column('text', { nullable: true }) task: string | null;
  @Column('text', { nullable: true }) externalId: string | null;
  @Column('text', { nullable: true }) splitGroup: string | null;
  /** FAILED: it went to the dead-letter topic. */
  @Column('text') state: 'SCORED' | 'FAILED';
  @Column('text', { nullable: true }) label: string | null;
  @Column('double precision', { nullable: true }) confidence: number | null;
  @Column('text', { nullable: true }) route: 'ACCEPT' | 'REVIEW' | null;
  @Column('integer', { nullable: true }) modelVersion: number | null;
  @Column('text', { nullable: true }) errorCode: string | null;
  @Column('text', { nullable: true }) errorMessage: string | null;
  @CreateDateColumn({ type: 'timestamptz' }) scoredAt: Date;
}
