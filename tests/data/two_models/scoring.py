"""A benchmark whose documents hold several instructions each, as IFEval's do."""


def followed(doc, results):
    words = results[0].split()
    told = [doc["answer"] in words, *(["." in words] if doc["a"] % 2 else [])]
    return {"all_followed": all(told), "each_followed": told, "words": len(words), "middle_length": len(words)}


def share(items):
    flat = [one for item in items for one in item]
    return sum(flat) / len(flat)
