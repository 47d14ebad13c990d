"""From finished trainings to judged tables: tables (what a plan's trainings measured), results (the
committed ones), distributions (over a layer), paper (the paper's own points), claims (verdicts),
distances (how far ours lie from the paper's)."""
