from tests.integration.test_search_scale import *
from tests.integration.test_search_scale import big
def test_x(big):
    import time
    q=vectors(1,4)[0]
    print(plan(by_vector(big, q, {}, 1, function="search_by_vector_explained")))
    print(plan(by_vector(big, q, {"tags_any": ["rare"]}, 1, function="search_by_vector_explained")))
    for f in FILTERS.values():
        for eb in (1, 1000000):
            t=time.perf_counter()
            for i in range(5): r=by_vector(big, q, f, eb)
            print(f, eb, len(r), round((time.perf_counter()-t)/5*1000,1),"ms")
