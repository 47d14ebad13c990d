"""The method of the paper: whoever reads this folder has read it. In this order:

recipes (what is trained, and the paper's Figure 2), lines (which trainings a line of a figure
shows), scales (what is shrunk), networks, masks, tickets (a mask and initial weights, and the
controls), data, seeds, training (the engine). Nothing here knows of files of results, of tables or
of pictures.
"""
