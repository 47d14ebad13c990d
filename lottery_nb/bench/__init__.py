"""How fast it is: speed (the engine against plain PyTorch), plain (those plain networks), growth
(of planning and looking up), simulation (a cluster by the clock). It may use all, nothing uses
it."""
