import { Column, CreateDateColumn, Entity, Generated, PrimaryGeneratedColumn } from 'typeorm';

/** A lifecycle event on its way out; gone once it is sent. */
@Entity('outbox_event')
export class OutboxEventRow {
  @PrimaryGeneratedColumn('increment', { type: 'bigint' }) seq: string;
  @Column('uuid') @Generated('uuid') id: string;
  @Column('text') type: string;
  @Column('text') task: string;
  @Column('jsonb') data: object;
  @CreateDateColumn({ type: 'timestamptz' }) at: Date;
}
