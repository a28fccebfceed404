"""What "Efficacy of data-free metrics: robust and critical evidence from robust and critical layers" prints."""

LAYERS = ("fc1", "fc2", "fc3", "fc4", "fc5", "fc6")
MODELS = 100
# Table 1: mean and standard error of alpha of the trained layers, and of the test accuracy [fraction].
ALPHA = {
    "fc1": (4.82, 0.025),
    "fc2": (4.205, 0.039),
    "fc3": (4.126, 0.038),
    "fc4": (4.135, 0.035),
    "fc5": (4.193, 0.034),
    "fc6": (3.793, 0.805),
}
ACCURACY = (0.96822, 0.00057)
# Figures 2, 3, 4: (rho, tau) of accuracy, mean over layers, re-initialised and re-randomised together.
CORRELATIONS = {"alpha": (-0.053, -0.035), "activation_disagreement": (-0.776, -0.5375)}
# What the paper shows only as a figure: seven models of an earlier, independent implementation.
EARLIER_MODELS = 7
EARLIER_ACCURACY = {
    "reinit": (0.669, 0.952, 0.967, 0.971, 0.968, 0.947),
    "reinit_signs": (0.526, 0.911, 0.945, 0.960, 0.955, 0.918),
}
EARLIER_RHO = {"activation_disagreement": -0.792, "js_divergence": -0.791, "linear_cka": 0.686}
