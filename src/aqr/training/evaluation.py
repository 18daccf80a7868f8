METRICS = "metrics.json"
class Evaluation: 
    pass
def evaluate(x): ...
