import { Column, Entity, Index, PrimaryGeneratedColumn } from 'typeorm';

/** An event that a webhook has not taken yet. */
@Entity('webhook_delivery')
@Index('webhook_delivery_due_idx', ['dueAt'])
export class WebhookDeliveryRow {
  @PrimaryGeneratedColumn('increment', { type: 'bigint' }) seq: string;
  @Column('text') url: string;
  /** CloudEvent. */
  @Column('jsonb') event: object;
  /** Begun so far. */
  @Column('integer', { default: 0 }) attempts: number;
  @Column('timestamptz', { default: () => 'now()' }) dueAt: Date;
}
