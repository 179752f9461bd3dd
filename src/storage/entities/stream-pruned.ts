import { Column, Entity, PrimaryColumn } from 'typeorm';

/** How many of a task's records were pruned from the history: what was counted stays counted. */
@Entity('stream_pruned')
export class StreamPrunedRow {
  @PrimaryColumn('text') task: string;
  @PrimaryColumn('text') state: 'SCORED' | 'FAILED';
  @Column('bigint') count: string;
}
