"""From a plan to finished trainings: plans (what is requested), graph (what that stands on), batch
(one batch of trainings), executors (who trains), runner (all of it), store (what is finished),
lineage (whether it is what it says), ticket_files (committed masks)."""
